"""The main job on real hosts: real releases, real systemd, real SSH, real failures."""
