#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Makes QEMU's schema, and its build, know Vitastor: `sh apply.sh QEMU_SOURCE`. May be repeated.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
source=${1:?usage: apply.sh QEMU_SOURCE (a folder with QEMU\'s source)}
[ -f "$source/VERSION" ] && [ -f "$source/qapi/block-core.json" ] || {
    echo "$source: no source of QEMU (VERSION and qapi/block-core.json are not there)" >&2
    exit 1
}
version=$(cat "$source/VERSION")
series=$(echo "$version" | cut -d. -f1,2)
patch=$here/qemu-$series.patch
if [ ! -f "$patch" ]; then
    known=$(cd "$here" && ls qemu-*.patch | sed 's/^qemu-//; s/\.patch$//' | sort -V | tr '\n' ' ')
    echo "There is no patch for QEMU $version, but for: $known" >&2
    echo "The nearest one may fit: patch -p1 -d $source < $here/qemu-VERSION.patch" >&2
    exit 1
fi
if grep -q BlockdevOptionsVitastor "$source/qapi/block-core.json"; then
    echo "QEMU $version in $source has the patch already; the driver is copied again"
else
    # All or nothing.
    patch --dry-run -s -p1 -d "$source" < "$patch" || {
        echo "$(basename "$patch") does not fit QEMU $version in $source; nothing was changed" >&2
        exit 1
    }
    patch -s -p1 -d "$source" < "$patch"
fi
mkdir -p "$source/block/vitastor"
for file in vitastor.c queue.c options.c queue.h options.h qemu_compat.h; do
    cp "$here/../$file" "$source/block/vitastor/"
done
echo "QEMU $version in $source has the driver now. Next, in that folder:"
echo "  ./configure --enable-vitastor ..."
