# Storage, images, roles and a budget always; a cluster if asked for.

module "storage" {
  source = "./modules/storage"
  name   = var.name
  # Without an account there is no globally unique name; a stand-in does not care.
  suffix = var.endpoint == null ? data.aws_caller_identity.me[0].account_id : "test"
}

module "access" {
  source       = "./modules/access"
  name         = var.name
  bucket_arn   = module.storage.bucket_arn
  kms_key_arn  = module.storage.kms_key_arn
  store_prefix = var.store_prefix
  raw_prefix   = var.raw_prefix
}

module "images" {
  source = "./modules/images"
  name   = var.name
}

module "budget" {
  count       = var.endpoint == null ? 1 : 0
  source      = "./modules/budget"
  name        = var.name
  monthly_usd = var.monthly_budget_usd
  emails      = var.alarm_emails
}

module "network" {
  count  = var.cluster == "none" ? 0 : 1
  source = "./modules/network"
  name   = var.name
  region = var.region
}

module "eks" {
  count             = var.cluster == "eks" ? 1 : 0
  source            = "./modules/eks"
  name              = var.name
  vpc_id            = module.network[0].vpc_id
  subnet_ids        = module.network[0].private_subnet_ids
  gpu_instance_type = var.gpu_instance_type
  gpu_max_nodes     = var.gpu_max_nodes
  gpu_capacity_type = var.gpu_capacity_type
  cpu_max_nodes     = var.cpu_max_nodes
  roles             = module.access.roles
  is_real           = var.endpoint == null
}

module "slurm" {
  count             = var.cluster == "slurm" ? 1 : 0
  source            = "./modules/slurm"
  name              = var.name
  region            = var.region
  head_subnet_id    = module.network[0].public_subnet_id
  node_subnet_id    = module.network[0].private_subnet_ids[0]
  gpu_instance_type = var.gpu_instance_type
  gpu_max_nodes     = var.gpu_max_nodes
  gpu_capacity_type = var.gpu_capacity_type
  cpu_max_nodes     = var.cpu_max_nodes
  policy_arns       = module.access.policy_arns
  ssh_key_name      = var.ssh_key_name
}

data "aws_caller_identity" "me" {
  count = var.endpoint == null ? 1 : 0
}
