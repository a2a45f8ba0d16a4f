# SPDX-License-Identifier: GPL-2.0-or-later
# Foreign libraries, found through pkg-config. Each becomes PkgConfig::NAME.
#   PkgConfig::liburing  the ring (>= 2.3)          PkgConfig::isal      erasure codes, CRC32C
#   PkgConfig::curl      etcd's JSON gateway        PkgConfig::simdjson  JSON

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(isal REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(curl REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(simdjson REQUIRED IMPORTED_TARGET simdjson)
