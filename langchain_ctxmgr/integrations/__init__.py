"""Where the manager meets its hosts: one module a host, none imported unless asked for."""
