"""What the rooms say to each other: requests, records, run directories, errors. Imports without torch."""
