#!/usr/bin/env bash
# build.sh DIR [ARCHITECTURE...]: the program, its packages (.deb and .rpm), its bill of materials (CycloneDX) and SHA256SUMS, in DIR.
# The same commit gives the same bytes. VERSION: another version than packaging/version.sh says; FORMATS: not both of deb and rpm.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1
shift
version=${VERSION:-$(packaging/version.sh)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH CGO_ENABLED=0 TZ=UTC LC_ALL=C
unset VIADUCT_SERVER VIADUCT_SOCKET # they would show in the pages
umask 022
go=${GO:-go}
tools=$PWD/build/tools
ctl=github.com/viaduct-net/viaduct/internal/ctl
commit=$(git describe --always --abbrev=40 --dirty=+changes --exclude '*')
date=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
flags=(-trimpath -buildvcs=false -ldflags "-s -w -X $ctl.version=$version -X $ctl.commit=$commit -X $ctl.date=$date -X main.version=$version")
rm -rf "$out"
mkdir -p "$out" "$tools"
out=$(cd "$out" && pwd)

GOFLAGS='' $go -C packaging/tools build -o "$tools/" tool

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is the same for all architectures; the pages come from a program that runs here.
$go build "${flags[@]}" -o "$work/native" ./cmd/viaduct
mkdir "$work/completion"
for shell in bash zsh fish; do "$work/native" completion $shell >"$work/completion/viaduct.$shell"; done
"$work/native" man "$work/man"
cp docs/man/* "$work/man/"
gzip -9n "$work"/man/*
cp packaging/copyright "$work/copyright"
gzip -9nc CHANGELOG.md >"$work/changelog.gz"
cat <<EOF | gzip -9n >"$work/changelog.Debian.gz"
viaduct ($version-1) unstable; urgency=medium

  * What is new is in changelog.gz.

 -- The Viaduct Authors <viaduct@users.noreply.github.com>  $(date -uRd "@$SOURCE_DATE_EPOCH")
EOF

for arch in "${@:-$($go env GOARCH)}"; do
	build=$work/$arch
	mkdir "$build"
	cp -r "$work"/{completion,man,copyright,changelog.gz,changelog.Debian.gz} "$build/"
	for program in viaduct viaduct-cni; do
		GOARCH=$arch $go build "${flags[@]}" -o "$build/$program" "./cmd/$program"
		"$tools/cyclonedx-gomod" bin -json -licenses -std -noserial -notimestamp -version "$version" -output "$build/$program.cdx.json" "$build/$program" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
	done
	# The packager takes over the files' times.
	find "$build" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
	for config in packaging/nfpm/*.yaml; do
		sed "s|\${ARCH}|$arch|; s|\${VERSION}|$version|; s|\${BUILD}|$build|" "$config" >"$work/nfpm.yaml"
		for format in ${FORMATS:-deb rpm}; do
			"$tools/nfpm" package --config "$work/nfpm.yaml" --packager $format --target "$out/" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
		done
	done
	for program in viaduct viaduct-cni; do
		cp "$build/$program" "$out/$program-$version-linux-$arch"
		cp "$build/$program.cdx.json" "$out/$program-$version-linux-$arch.cdx.json"
	done
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
