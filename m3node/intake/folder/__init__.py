"""What people hand over as files: folders, ZIPs, and the watched folder."""
