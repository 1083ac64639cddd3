# A Kubernetes cluster: CPU nodes for curation on spot, GPU nodes with EFA that scale to zero.

variable "name" { type = string }
variable "vpc_id" { type = string }
variable "subnet_ids" { type = list(string) }
variable "gpu_instance_type" { type = string }
variable "gpu_max_nodes" { type = number }
variable "gpu_capacity_type" { type = string }
variable "cpu_max_nodes" { type = number }

variable "roles" {
  description = "Role -> its name and ARN, for the pods' service accounts."
  type        = map(object({ name = string, arn = string }))
}

variable "is_real" {
  description = "False against a stand-in for AWS, which hangs on placement groups."
  type        = bool
}

variable "kubernetes_version" {
  type    = string
  default = "1.32"
}

variable "namespace" {
  description = "Of infra/kubernetes."
  type        = string
  default     = "svd"
}

data "aws_iam_policy_document" "assume" {
  for_each = toset(["eks.amazonaws.com", "ec2.amazonaws.com"])
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = [each.key]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-eks-cluster"
  assume_role_policy = data.aws_iam_policy_document.assume["eks.amazonaws.com"].json
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-eks-node"
  assume_role_policy = data.aws_iam_policy_document.assume["ec2.amazonaws.com"].json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

# What a node itself needs; access to the bucket comes with a pod's service account.
resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryReadOnly"])
  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}

resource "aws_eks_cluster" "main" {
  name     = var.name
  role_arn = aws_iam_role.cluster.arn
  version  = var.kubernetes_version
  vpc_config {
    subnet_ids              = var.subnet_ids
    endpoint_private_access = true
  }
  access_config { authentication_mode = "API" }
  enabled_cluster_log_types = ["api", "audit"]
  depends_on                = [aws_iam_role_policy_attachment.cluster]
}

resource "aws_eks_addon" "pod_identity" {
  cluster_name = aws_eks_cluster.main.name
  addon_name   = "eks-pod-identity-agent"
}

resource "aws_eks_pod_identity_association" "role" {
  for_each        = var.roles
  cluster_name    = aws_eks_cluster.main.name
  namespace       = var.namespace
  service_account = "svd-${each.key}"
  role_arn        = each.value.arn
}

resource "aws_eks_node_group" "cpu" {
  cluster_name    = aws_eks_cluster.main.name
  node_group_name = "cpu"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnet_ids
  capacity_type   = "SPOT"
  instance_types  = ["c7i.8xlarge", "c6i.8xlarge", "m7i.8xlarge"] # several, so that spot finds one
  scaling_config {
    min_size     = 1 # Prefect's server and worker live here
    desired_size = 1
    max_size     = var.cpu_max_nodes
  }
  depends_on = [aws_iam_role_policy_attachment.node]
}

# Ranks talk to each other through EFA, which needs traffic to itself and nothing else.
resource "aws_security_group" "efa" {
  name_prefix = "${var.name}-efa-"
  description = "Traffic among training nodes"
  vpc_id      = var.vpc_id
  ingress {
    from_port = 0
    to_port   = 0
    protocol  = "-1"
    self      = true
  }
  egress {
    from_port = 0
    to_port   = 0
    protocol  = "-1"
    self      = true
  }
  egress {
    description = "Images, S3 and the API server"
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_placement_group" "gpu" {
  count    = var.is_real ? 1 : 0
  name     = "${var.name}-gpu"
  strategy = "cluster"
}

resource "aws_launch_template" "gpu" {
  name_prefix = "${var.name}-gpu-"
  dynamic "placement" {
    for_each = aws_placement_group.gpu
    content { group_name = placement.value.name }
  }
  network_interfaces {
    device_index    = 0
    interface_type  = "efa"
    security_groups = [aws_security_group.efa.id, aws_eks_cluster.main.vpc_config[0].cluster_security_group_id]
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size = 500 # GiB; images, and shards in flight
      volume_type = "gp3"
      encrypted   = true
    }
  }
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # pods do not reach the node's role
  }
}

resource "aws_eks_node_group" "gpu" {
  cluster_name    = aws_eks_cluster.main.name
  node_group_name = "gpu"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [var.subnet_ids[0]] # one zone: ranks are close together
  capacity_type   = var.gpu_capacity_type
  instance_types  = [var.gpu_instance_type]
  ami_type        = "AL2023_x86_64_NVIDIA"
  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.gpu_max_nodes
  }
  taint {
    key    = "nvidia.com/gpu"
    value  = "true"
    effect = "NO_SCHEDULE"
  }
  launch_template {
    id      = aws_launch_template.gpu.id
    version = aws_launch_template.gpu.latest_version
  }
  lifecycle { ignore_changes = [scaling_config[0].desired_size] } # the autoscaler's
  depends_on = [aws_iam_role_policy_attachment.node]
}

output "cluster_name" { value = aws_eks_cluster.main.name }
