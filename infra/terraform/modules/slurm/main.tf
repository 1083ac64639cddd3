# A Slurm cluster by AWS ParallelCluster: Terraform makes its network and roles and writes its
# configuration; `pcluster create-cluster` makes the cluster from it.

variable "name" { type = string }
variable "region" { type = string }
variable "head_subnet_id" { type = string }
variable "node_subnet_id" { type = string }
variable "gpu_instance_type" { type = string }
variable "gpu_max_nodes" { type = number }
variable "gpu_capacity_type" { type = string }
variable "cpu_max_nodes" { type = number }
variable "policy_arns" { type = map(string) }
variable "ssh_key_name" { type = string }

locals {
  capacity = { SPOT = "SPOT", ON_DEMAND = "ONDEMAND" }
  ssh      = var.ssh_key_name == null ? {} : { Ssh = { KeyName = var.ssh_key_name } }

  config = {
    Region = var.region
    Image  = { Os = "ubuntu2204" }
    Tags   = [{ Key = "project", Value = var.name }]
    HeadNode = merge(local.ssh, {
      InstanceType = "m7i.2xlarge" # Prefect's server and process worker run here
      Networking   = { SubnetId = var.head_subnet_id, ElasticIp = true }
      Iam          = { AdditionalIamPolicies = [{ Policy = var.policy_arns["trainer"] }] }
    })
    Scheduling = {
      Scheduler     = "slurm"
      SlurmSettings = { ScaledownIdletime = 10 } # minutes; an idle GPU node is money
      SlurmQueues = [
        {
          Name             = "gpu"
          CapacityType     = local.capacity[var.gpu_capacity_type]
          Networking       = { SubnetIds = [var.node_subnet_id], PlacementGroup = { Enabled = true } }
          Iam              = { AdditionalIamPolicies = [{ Policy = var.policy_arns["trainer"] }] }
          ComputeResources = [{ Name = "gpu", InstanceType = var.gpu_instance_type, MinCount = 0, MaxCount = var.gpu_max_nodes, Efa = { Enabled = true } }]
        },
        {
          Name             = "cpu"
          CapacityType     = "SPOT"
          Networking       = { SubnetIds = [var.node_subnet_id] }
          Iam              = { AdditionalIamPolicies = [{ Policy = var.policy_arns["curator"] }] }
          ComputeResources = [{ Name = "cpu", Instances = [{ InstanceType = "c7i.8xlarge" }, { InstanceType = "c6i.8xlarge" }], MinCount = 0, MaxCount = var.cpu_max_nodes }]
        },
      ]
    }
    SharedStorage = [{
      Name        = "shared"
      StorageType = "Efs" # checkouts and live checkpoints; shards come from S3
      MountDir    = "/shared"
      EfsSettings = { Encrypted = true, ThroughputMode = "elastic" }
    }]
    Monitoring = { Logs = { CloudWatch = { RetentionInDays = 30 } } }
  }
}

output "cluster_config" { value = yamlencode(local.config) }
