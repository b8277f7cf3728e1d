"""Accounting's Lua scripts, the only writers of bucket and money keys. Each `.lua` file states its arguments."""

from quarterdeck.net.lua_scripts import PackagedScript

PACKAGE = "quarterdeck.accounting"

REQUESTS_AT_ONCE = 50
"""Requests of one principal that one script reserves or settles; it blocks Redis meanwhile."""

RESERVE = PackagedScript(PACKAGE, "reserve")
SETTLE = PackagedScript(PACKAGE, "settle")
EXTEND = PackagedScript(PACKAGE, "extend")
RENEW = PackagedScript(PACKAGE, "renew")
FIND_EXPIRED = PackagedScript(PACKAGE, "find_expired")
DROP_RESERVATION = PackagedScript(PACKAGE, "drop_reservation")
BEGIN_RECOUNT = PackagedScript(PACKAGE, "begin_recount")
FINISH_RECOUNT = PackagedScript(PACKAGE, "finish_recount")
BUMP_REVISION = PackagedScript(PACKAGE, "bump_revision")
