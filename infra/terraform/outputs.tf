output "store_uri" {
  description = "What SVD_STORE is set to."
  value       = "s3://${module.storage.bucket}/${var.store_prefix}"
}

output "raw_uri" {
  description = "Where raw videos are put; an s3 source of ingest."
  value       = "s3://${module.storage.bucket}/${var.raw_prefix}"
}

output "image_repository" {
  description = "Where images are pushed to."
  value       = module.images.url
}

output "role_arns" {
  description = "Role -> ARN."
  value       = { for role, made in module.access.roles : role => made.arn }
}

output "eks_cluster" {
  description = "For `aws eks update-kubeconfig --name`."
  value       = one(module.eks[*].cluster_name)
}

output "slurm_cluster_config" {
  description = "For `pcluster create-cluster --cluster-configuration`."
  value       = one(module.slurm[*].cluster_config)
}
