#!/bin/sh
# The version of the packages: that of a tag vX.Y.Z, or one that is older than any release and newer than that of an earlier commit.
set -eu
if tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
	echo "${tag#v}" | tr - '~'
	exit
fi
TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=0.0.0~%cd.g%h --abbrev=8
