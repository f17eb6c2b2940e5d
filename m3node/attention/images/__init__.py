"""Images that questions are about: found by name or UID, read as they are to be shown, the body in them outlined."""
