#!/bin/sh
# Each night: export what has run since the last night, into one directory.
#
#   15 2 * * *  . /etc/segments-async.env; exec nightly.sh /srv/exports
#
# /etc/segments-async.env exports SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN, and is readable by its
# owner alone. The run has no name: so a night that breaks off is taken up by the next one, and no
# export is asked for twice. With --quiet, cron sends mail only where something failed.
set -eu
to=${1:?usage: nightly.sh DIRECTORY}
exec segments-async export --all --to "$to" --only-changed --retry-failed 1 --quiet >/dev/null
