"""What the pages share: their shell and policy, style, escaping, numbers for a reader, and read-outs under the pointer."""
