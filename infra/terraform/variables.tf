variable "name" {
  description = "Prefix of every resource's name; lower case, because buckets are named by it."
  type        = string
  default     = "svd"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "name must be 2 to 21 lower-case letters, digits or dashes, and start with a letter."
  }
}

variable "region" {
  description = "AWS region; pick one with the GPU type you can get."
  type        = string
  default     = "us-east-1"
}

variable "endpoint" {
  description = "Address of a stand-in for AWS, for tests only."
  type        = string
  default     = null
}

variable "store_prefix" {
  description = "Prefix of the store in the bucket: SVD_STORE is s3://BUCKET/PREFIX."
  type        = string
  default     = "store"
}

variable "raw_prefix" {
  description = "Prefix of raw videos in the bucket: an s3 source of ingest."
  type        = string
  default     = "raw"
}

variable "cluster" {
  description = "Where ranks run: none (storage and roles only), eks, or slurm (AWS ParallelCluster)."
  type        = string
  default     = "none"
  validation {
    condition     = contains(["none", "eks", "slurm"], var.cluster)
    error_message = "cluster must be none, eks or slurm."
  }
}

variable "gpu_instance_type" {
  description = "Instance type of training nodes."
  type        = string
  default     = "p5.48xlarge"
}

variable "gpu_max_nodes" {
  description = "Most training nodes at once; nodes scale to zero when nothing trains."
  type        = number
  default     = 4
}

variable "gpu_capacity_type" {
  description = "SPOT or ON_DEMAND. Training resumes from its last checkpoint when spot nodes are taken."
  type        = string
  default     = "SPOT"
  validation {
    condition     = contains(["SPOT", "ON_DEMAND"], var.gpu_capacity_type)
    error_message = "gpu_capacity_type must be SPOT or ON_DEMAND."
  }
}

variable "cpu_max_nodes" {
  description = "Most curation nodes at once."
  type        = number
  default     = 16
}

variable "ssh_key_name" {
  description = "EC2 key pair for the head node; of cluster slurm."
  type        = string
  default     = null
}

variable "monthly_budget_usd" {
  description = "Alarm at 50, 80 and 100 percent of this, and at 100 percent of the forecast."
  type        = number
  default     = 1000
}

variable "alarm_emails" {
  description = "Who is told about the budget."
  type        = list(string)
  default     = []
}
