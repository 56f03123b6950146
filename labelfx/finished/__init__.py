"""What a finished run leaves: its encoder as a function, variables as safetensors, files of features, a file that runs
without labelfx. Nothing here trains."""
