"""Custom resources compiled into the configuration that gateways follow. Pure: values in, values out.

* `objects`     objects read, and checked one by one
* `claims`      which object has a name: of several, the oldest
* `conversion`  one object as an entry of quarterdeck.yaml
* `routes`      targets of routes resolved; a canary as a route
* `compiler`    all of it: `compile_objects`
* `documents`   the result as text
* `verdicts`    what is found out about each object
* `runtime`     what is known of engines beyond their specs
"""
