# SPDX-License-Identifier: GPL-2.0-or-later
# Compiler settings that hold for the whole tree.

option(VITASTOR_TESTS "Build tests" ON)
option(VITASTOR_FUZZ "Build fuzz targets" OFF)
option(VITASTOR_LTO "Optimise across files when linking" OFF)
option(VITASTOR_VERIFY "Turn the costly checks of VITASTOR_VERIFY on" OFF)
# A newer compiler knows newer warnings; they shall not keep anybody from building.
set(vitastor_werror_default OFF)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    set(vitastor_werror_default ON)
endif()
option(VITASTOR_WERROR "Warnings stop the build (default: with GCC 12)" ${vitastor_werror_default})
option(VITASTOR_STRICT "A source that is not there stops the configuration (npm run build sets it)" OFF)
set(VITASTOR_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")

set(CMAKE_C_STANDARD 11)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
# Assertions stay on in every build: no NDEBUG here.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g")

# Everything that is linked lies in one place: addons, libvitastor, the fio engine, tests.
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

find_program(VITASTOR_CCACHE ccache)
if(VITASTOR_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    # Build directories share results: only the compilation directory in the debug information may differ.
    set(vitastor_launcher "${CMAKE_COMMAND}" -E env CCACHE_NOHASHDIR=1 "${VITASTOR_CCACHE}")
    set(CMAKE_C_COMPILER_LAUNCHER "${vitastor_launcher}")
    set(CMAKE_CXX_COMPILER_LAUNCHER "${vitastor_launcher}")
endif()

add_compile_options(-Wall -Wextra -fno-omit-frame-pointer)
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fno-rtti>")
add_compile_definitions(_FILE_OFFSET_BITS=64)
if(VITASTOR_WERROR)
    add_compile_options(-Werror)
endif()
if(VITASTOR_VERIFY)
    add_compile_definitions(VITASTOR_VERIFY_ENABLED=1)
endif()
if(VITASTOR_SANITIZE)
    add_compile_options(-fsanitize=${VITASTOR_SANITIZE} -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${VITASTOR_SANITIZE})
    if(VITASTOR_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        add_compile_options(-Wno-tsan)  # standalone fences are not modelled; warned once a file
    endif()
    # GCC sees ghosts in instrumented code.
    add_compile_options(-Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds)
endif()
if(VITASTOR_LTO)
    include(CheckIPOSupported)
    check_ipo_supported(RESULT vitastor_ipo OUTPUT vitastor_ipo_why LANGUAGES C CXX)
    if(vitastor_ipo)
        set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ON)
    else()
        message(WARNING "Link-time optimisation is not available here: ${vitastor_ipo_why}")
    endif()
endif()
