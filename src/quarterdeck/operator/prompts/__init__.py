"""Mirrors Prompt objects into the platform's prompts, through a gateway's `/v1/prompts`.

* `plan`       what differs between an object and the platform's prompt
* `client`     the gateway's API
* `record`     which prompts are mirrored, so that those of deleted objects are archived
* `reconcile`  all of it, and the status
"""
