"""From instances to manifests: headers, stacks, what is fit, and the manifest that fixes a generation."""
