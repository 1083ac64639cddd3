# Who may do what in the bucket: nothing outside the prefixes, and raw videos are read-only to all.
#
# curator   reads raw videos, reads and writes the store (curation, encoding)
# trainer   reads and writes the store (training, evaluation, registration)
# reader    reads the store (serving, `svd registry fetch`)

variable "name" { type = string }
variable "bucket_arn" { type = string }
variable "kms_key_arn" { type = string }
variable "store_prefix" { type = string }
variable "raw_prefix" { type = string }

locals {
  prefixes = {
    curator = { read = [var.raw_prefix, var.store_prefix], write = [var.store_prefix] }
    trainer = { read = [var.store_prefix], write = [var.store_prefix] }
    reader  = { read = [var.store_prefix], write = [] }
  }
}

data "aws_iam_policy_document" "role" {
  for_each = local.prefixes

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = flatten([for prefix in each.value.read : [prefix, "${prefix}/*"]])
    }
  }
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = [for prefix in each.value.read : "${var.bucket_arn}/${prefix}/*"]
  }
  dynamic "statement" {
    for_each = length(each.value.write) > 0 ? [each.value.write] : []
    content {
      sid       = "Write"
      actions   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
      resources = [for prefix in statement.value : "${var.bucket_arn}/${prefix}/*"]
    }
  }
  statement {
    sid       = "Key"
    actions   = length(each.value.write) > 0 ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
    resources = [var.kms_key_arn]
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com", "ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "role" {
  for_each = local.prefixes
  name     = "${var.name}-${each.key}"
  policy   = data.aws_iam_policy_document.role[each.key].json
}

resource "aws_iam_role" "role" {
  for_each           = local.prefixes
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "role" {
  for_each   = local.prefixes
  role       = aws_iam_role.role[each.key].name
  policy_arn = aws_iam_policy.role[each.key].arn
}

output "roles" {
  value = { for role, made in aws_iam_role.role : role => { name = made.name, arn = made.arn } }
}

output "policy_arns" {
  value = { for role, made in aws_iam_policy.role : role => made.arn }
}

output "policies" {
  value = { for role, made in data.aws_iam_policy_document.role : role => made.json }
}
