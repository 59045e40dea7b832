#!/usr/bin/env bash
# build.sh: the packages of this tree in build/packages/old and, as of a later version, in build/packages/new; and once more where the
# path, the mask and the time zone are others, to see that they are the same to the byte.
set -euo pipefail
cd "$(dirname "$0")/../.."

rm -rf build/packages
packaging/build.sh build/packages/old
lintian --fail-on error --allow-root build/packages/old/*.deb
VERSION=$(packaging/version.sh)+1 FORMATS=deb packaging/build.sh build/packages/new

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$PWD
# What is not committed yet cannot be cloned: then it is the same path again.
if [ -z "$(git status --porcelain)" ]; then
	git clone -q --shared . "$work/elsewhere"
	tree=$work/elsewhere
fi
(umask 077 && TZ=Asia/Tokyo LC_ALL=C "$tree/packaging/build.sh" "$work/again")
diff build/packages/old/SHA256SUMS "$work/again/SHA256SUMS" || { echo "build.sh: built again, the packages are others" >&2; exit 1; }
