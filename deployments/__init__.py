"""The doors: command line, deployments, the stack of servers."""
