"""The contents of stored files, and safe reading of files that anybody may have made."""
