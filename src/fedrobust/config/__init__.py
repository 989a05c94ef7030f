"""How a value is read, checked, told and written."""
