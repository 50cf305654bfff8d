"""Parts shared by the pages: HTML shell, content security policy, style, escaping, tooltips."""
