terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

# An endpoint of one's own stands for AWS in tests; it knows neither account nor metadata service.
provider "aws" {
  region                      = var.region
  skip_credentials_validation = var.endpoint != null
  skip_metadata_api_check     = var.endpoint != null
  skip_requesting_account_id  = var.endpoint != null
  s3_use_path_style           = var.endpoint != null

  dynamic "endpoints" {
    for_each = var.endpoint == null ? [] : [var.endpoint]
    content {
      budgets = endpoints.value
      ec2     = endpoints.value
      ecr     = endpoints.value
      eks     = endpoints.value
      iam     = endpoints.value
      kms     = endpoints.value
      s3      = endpoints.value
      sns     = endpoints.value
      sts     = endpoints.value
    }
  }

  default_tags {
    tags = { project = var.name }
  }
}
