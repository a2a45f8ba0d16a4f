# SPDX-License-Identifier: GPL-2.0-or-later
# Helpers that make targets. Includes are written from the side's root: "base/result.hpp",
# "runtime/loop.hpp", "store/store.hpp".

set(VITASTOR_ROOT "${CMAKE_CURRENT_SOURCE_DIR}" CACHE INTERNAL "")
set_property(GLOBAL PROPERTY VITASTOR_LAYER_TARGETS "")

# Our own code never throws. Tests do (doctest's REQUIRE), so this is not a flag of the whole tree.
function(_vitastor_no_exceptions target)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions>")
endfunction()

function(_vitastor_includes target visibility)
    target_include_directories(${target} ${visibility}
        "${VITASTOR_ROOT}/core/native" "${VITASTOR_ROOT}/core/include" "${VITASTOR_ROOT}/osd/native")
endfunction()

# "base" names a layer of ours, anything else is passed on as it is.
function(_vitastor_resolve out)
    set(resolved "")
    foreach(name IN LISTS ARGN)
        if(TARGET vitastor_${name})
            list(APPEND resolved vitastor_${name})
        else()
            list(APPEND resolved ${name})
        endif()
    endforeach()
    set(${out} ${resolved} PARENT_SCOPE)
endfunction()

# vitastor_layer(NAME DEPENDS layer... SOURCES file... [LIBS PkgConfig::liburing...])
# Makes the static library vitastor_NAME. DEPENDS are layers, LIBS foreign libraries.
# A layer without sources (headers only) becomes an interface library.
function(vitastor_layer name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEPENDS;SOURCES;LIBS")
    if(arg_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "vitastor_layer(${name}): what is ${arg_UNPARSED_ARGUMENTS}?")
    endif()
    set(target vitastor_${name})
    _vitastor_resolve(depends ${arg_DEPENDS})
    if(arg_SOURCES)
        add_library(${target} STATIC ${arg_SOURCES})
        _vitastor_includes(${target} PUBLIC)
        _vitastor_no_exceptions(${target})
        target_link_libraries(${target} PUBLIC ${depends} ${arg_LIBS} Threads::Threads)
    else()
        add_library(${target} INTERFACE)
        _vitastor_includes(${target} INTERFACE)
        target_link_libraries(${target} INTERFACE ${depends} ${arg_LIBS} Threads::Threads)
    endif()
    set_property(GLOBAL APPEND PROPERTY VITASTOR_LAYER_TARGETS ${target})
    set_property(GLOBAL PROPERTY VITASTOR_LAYER_DIR_${target} "${CMAKE_CURRENT_SOURCE_DIR}")
endfunction()

# vitastor_library(NAME SOURCES file... LIBS layer... [PUBLIC_HEADERS file...])
# Makes the shared library libNAME.so (target NAME) with only the marked symbols visible.
function(vitastor_library name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBS")
    _vitastor_resolve(libs ${arg_LIBS})
    add_library(${name} SHARED ${arg_SOURCES})
    _vitastor_includes(${name} PUBLIC)
    _vitastor_no_exceptions(${name})
    target_link_libraries(${name} PRIVATE ${libs})
    target_link_options(${name} PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
    add_dependencies(product ${name})
endfunction()

# vitastor_addon(NAME SOURCES file... LIBS layer...)
# Makes the Node addon build/<preset>/NAME.node (target NAME) with the headers of the pinned npm
# packages; it runs on every Node.js from 18.20 on.
function(vitastor_addon name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBS")
    _vitastor_resolve(libs ${arg_LIBS})
    set(modules "${VITASTOR_ROOT}/node_modules")
    if(NOT EXISTS "${modules}/node-addon-api/napi.h"
            OR NOT EXISTS "${modules}/node-api-headers/include/node_api.h")
        message(FATAL_ERROR "The addon ${name} needs the npm packages node-addon-api and "
            "node-api-headers: run `npm run setup` first.")
    endif()
    add_library(${name} MODULE ${arg_SOURCES})
    set_target_properties(${name} PROPERTIES
        PREFIX "" SUFFIX ".node" LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
    target_include_directories(${name} SYSTEM PRIVATE
        "${modules}/node-addon-api" "${modules}/node-api-headers/include")
    target_compile_definitions(${name} PRIVATE
        NAPI_VERSION=8 NAPI_DISABLE_CPP_EXCEPTIONS NODE_ADDON_API_DISABLE_DEPRECATED
        NODE_GYP_MODULE_NAME=${name} BUILDING_NODE_EXTENSION)
    _vitastor_includes(${name} PRIVATE)
    _vitastor_no_exceptions(${name})
    target_link_libraries(${name} PRIVATE ${libs})
    target_link_options(${name} PRIVATE -Wl,--exclude-libs,ALL)
    add_dependencies(product ${name})
endfunction()

# doctest's main, compiled once.
function(_vitastor_test_main)
    if(NOT TARGET vitastor_test_main)
        add_library(vitastor_test_main STATIC "${VITASTOR_ROOT}/cmake/doctest_main.cpp")
        target_link_libraries(vitastor_test_main PUBLIC doctest::doctest)
        target_compile_options(vitastor_test_main PUBLIC "$<$<COMPILE_LANGUAGE:CXX>:-fexceptions>")
    endif()
endfunction()

# vitastor_test(NAME LIBS layer... SOURCES file... [TIMEOUT seconds] [LABELS label...])
# Makes the doctest executable NAME (build/<preset>/bin/NAME) and registers it with ctest.
# Sources write #include <doctest/doctest.h> and their cases; main is provided.
function(vitastor_test name)
    if(NOT VITASTOR_TESTS)
        return()
    endif()
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "LIBS;SOURCES;LABELS")
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120)
    endif()
    find_package(doctest REQUIRED)
    _vitastor_test_main()
    _vitastor_resolve(libs ${arg_LIBS})
    add_executable(${name} ${arg_SOURCES})
    _vitastor_includes(${name} PRIVATE)
    target_link_libraries(${name} PRIVATE ${libs} vitastor_test_main)
    target_compile_definitions(${name} PRIVATE
        VITASTOR_SOURCE_DIR="${VITASTOR_ROOT}" VITASTOR_TEST_DIR="${CMAKE_CURRENT_SOURCE_DIR}")
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
endfunction()

# vitastor_fuzz(NAME LIBS layer... SOURCES file... [CORPUS directory])
# A fuzz target: SOURCES define LLVMFuzzerTestOneInput(const uint8_t*, size_t). With clang it is
# libFuzzer's; with GCC our own driver with the same basic options (-runs, -max_total_time, -seed,
# corpus directories or files as arguments). Built under the preset fuzz only. CORPUS defaults to corpus/NAME
# beside the CMakeLists.txt.
function(vitastor_fuzz name)
    if(NOT VITASTOR_FUZZ)
        return()
    endif()
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "CORPUS" "LIBS;SOURCES")
    _vitastor_resolve(libs ${arg_LIBS})
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        add_executable(${name} ${arg_SOURCES})
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    else()
        add_executable(${name} ${arg_SOURCES} "${VITASTOR_ROOT}/cmake/fuzz_driver.cpp")
    endif()
    _vitastor_includes(${name} PRIVATE)
    _vitastor_no_exceptions(${name})
    target_link_libraries(${name} PRIVATE ${libs})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz")
    if(NOT arg_CORPUS)
        set(arg_CORPUS "${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name}")
    endif()
    set_property(GLOBAL APPEND PROPERTY VITASTOR_FUZZ_LIST "${name}\t${arg_CORPUS}")
endfunction()

# Every header of every layer compiles alone: target `header_checks` (part of `npm run lint`).
# Also leaves fuzz/targets.txt, one line a target: name, tab, corpus directory.
function(vitastor_header_checks)
    get_property(fuzzers GLOBAL PROPERTY VITASTOR_FUZZ_LIST)
    if(fuzzers)
        list(JOIN fuzzers "\n" lines)
        file(WRITE "${CMAKE_BINARY_DIR}/fuzz/targets.txt" "${lines}\n")
    endif()
    get_property(layers GLOBAL PROPERTY VITASTOR_LAYER_TARGETS)
    add_custom_target(header_checks)
    foreach(layer IN LISTS layers)
        get_property(dir GLOBAL PROPERTY VITASTOR_LAYER_DIR_${layer})
        file(GLOB headers CONFIGURE_DEPENDS "${dir}/*.hpp" "${dir}/*.h")
        set(stubs "")
        foreach(header IN LISTS headers)
            cmake_path(GET header FILENAME leaf)
            set(stub "${CMAKE_BINARY_DIR}/header_checks/${layer}/${leaf}.cpp")
            file(CONFIGURE OUTPUT "${stub}" CONTENT "#include \"${header}\"\n" @ONLY)
            list(APPEND stubs "${stub}")
        endforeach()
        if(stubs)
            add_library(header_check_${layer} OBJECT EXCLUDE_FROM_ALL ${stubs})
            target_link_libraries(header_check_${layer} PRIVATE ${layer})
            target_compile_options(header_check_${layer} PRIVATE -fno-exceptions -O0)
            add_dependencies(header_checks header_check_${layer})
        endif()
    endforeach()
endfunction()
