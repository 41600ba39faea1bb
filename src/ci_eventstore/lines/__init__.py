"""A log as lines: read by number or time, as plain text, searched, and with the outline that its marks make."""
