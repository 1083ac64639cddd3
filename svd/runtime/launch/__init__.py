"""Starting the ranks of a training job: here, under Slurm, or on Kubernetes."""
