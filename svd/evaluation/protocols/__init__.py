"""Published protocols, one file each, over one machinery: plan, measure clip by clip, reduce."""
