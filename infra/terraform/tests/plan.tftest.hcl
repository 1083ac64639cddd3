# What a plan must hold, with a provider that answers without AWS: `terraform test`.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/mock" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/mock" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mock" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_eks_cluster" {
    defaults = { vpc_config = { cluster_security_group_id = "sg-0123456789abcdef0" } }
  }
}

run "the_bucket_is_private_versioned_and_encrypted" {
  command = plan

  module { source = "./modules/storage" }
  variables {
    name   = "svd"
    suffix = "123456789012"
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.store.block_public_acls,
      aws_s3_bucket_public_access_block.store.block_public_policy,
      aws_s3_bucket_public_access_block.store.ignore_public_acls,
      aws_s3_bucket_public_access_block.store.restrict_public_buckets,
    ])
    error_message = "public access must be blocked in all four ways"
  }
  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Enabled"
    error_message = "the bucket must be versioned"
  }
  assert {
    condition = anytrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.store.rule :
      rule.apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"
    ])
    error_message = "objects must be encrypted with the project's key"
  }
}

run "no_cluster_costs_nothing" {
  command = plan
  variables { cluster = "none" }
  assert {
    condition     = length(module.eks) + length(module.slurm) + length(module.network) == 0
    error_message = "cluster=none must make storage and roles only"
  }
}

run "gpu_nodes_scale_to_zero_in_one_zone_with_efa" {
  command = plan

  module { source = "./modules/eks" }
  variables {
    name              = "svd"
    vpc_id            = "vpc-1"
    subnet_ids        = ["subnet-1", "subnet-2"]
    gpu_instance_type = "p5.48xlarge"
    gpu_max_nodes     = 4
    gpu_capacity_type = "SPOT"
    cpu_max_nodes     = 16
    roles             = { trainer = { name = "svd-trainer", arn = "arn:aws:iam::123456789012:role/t" } }
    is_real           = true
  }

  assert {
    condition     = aws_eks_node_group.gpu.scaling_config[0].min_size == 0
    error_message = "idle GPU nodes must go"
  }
  assert {
    condition     = length(aws_eks_node_group.gpu.subnet_ids) == 1
    error_message = "training nodes must be in one zone"
  }
  assert {
    condition     = aws_launch_template.gpu.network_interfaces[0].interface_type == "efa"
    error_message = "training nodes must talk over EFA"
  }
  assert {
    condition     = aws_launch_template.gpu.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "pods must not reach the node's role"
  }
  assert {
    condition     = aws_eks_pod_identity_association.role["trainer"].service_account == "svd-trainer"
    error_message = "the trainer's pods must get the trainer's role"
  }
}

run "the_slurm_configuration_has_a_gpu_queue_that_scales_to_zero" {
  command = plan

  module { source = "./modules/slurm" }
  variables {
    name              = "svd"
    region            = "us-east-1"
    head_subnet_id    = "subnet-1"
    node_subnet_id    = "subnet-2"
    gpu_instance_type = "p5.48xlarge"
    gpu_max_nodes     = 4
    gpu_capacity_type = "ON_DEMAND"
    cpu_max_nodes     = 8
    policy_arns       = { trainer = "arn:t", curator = "arn:c", reader = "arn:r" }
    ssh_key_name      = null
  }

  assert {
    condition = yamldecode(output.cluster_config).Scheduling.SlurmQueues[0].ComputeResources[0] == {
      Name = "gpu", InstanceType = "p5.48xlarge", MinCount = 0, MaxCount = 4, Efa = { Enabled = true }
    }
    error_message = "the GPU queue must scale to zero and use EFA"
  }
  assert {
    condition     = yamldecode(output.cluster_config).Scheduling.SlurmQueues[0].CapacityType == "ONDEMAND"
    error_message = "ParallelCluster spells it ONDEMAND"
  }
}

run "the_budget_tells_before_the_money_is_gone" {
  command = plan

  module { source = "./modules/budget" }
  variables {
    name        = "svd"
    monthly_usd = 500
    emails      = ["team@example.org"]
  }

  assert {
    condition     = length(aws_budgets_budget.monthly.notification) == 4
    error_message = "alarms at 50, 80, 100 percent and for the forecast"
  }
}

run "a_wrong_cluster_is_one_sentence" {
  command = plan
  variables { cluster = "nomad" }
  expect_failures = [var.cluster]
}
