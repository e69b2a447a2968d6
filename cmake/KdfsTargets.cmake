# The functions each folder's CMakeLists.txt is written in. A library that lists no source yet is
# header-only; a program or test without one is skipped. The first is one line like any other.

include(GoogleTest)

add_custom_target(kdfs_programs COMMENT "All programs of kdfs")

# kdfs_library(<name> SOURCES <file>... DEPS <target>... PRIVATE_DEPS <target>...)
# DEPS are what the headers need; PRIVATE_DEPS stay hidden in the sources.
function(kdfs_library name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS;PRIVATE_DEPS")
    if(NOT arg_SOURCES)
        add_library(${name} INTERFACE)
        target_include_directories(${name} INTERFACE ${CMAKE_SOURCE_DIR})
        target_link_libraries(${name} INTERFACE ${arg_DEPS})
        return()
    endif()
    add_library(${name} STATIC ${arg_SOURCES})
    target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS} kdfs_warnings)
endfunction()

# kdfs_program(<name> SOURCES <file>... DEPS <target>...): build/<preset>/bin/<name>
function(kdfs_program name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS")
    if(NOT arg_SOURCES)
        return()
    endif()
    add_executable(${name} ${arg_SOURCES})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} PRIVATE ${arg_DEPS} kdfs_dep_allocator kdfs_warnings)
    add_dependencies(kdfs_programs ${name})
endfunction()

# kdfs_test(<name> LABEL unit|contract|sim SOURCES <file>... DEPS <target>...)
# One GoogleTest program for several files; each TEST is a ctest entry <name>.<Suite>.<Case>.
function(kdfs_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL" "SOURCES;DEPS")
    if(NOT arg_LABEL)
        message(FATAL_ERROR "kdfs_test(${name}): LABEL is missing")
    endif()
    if(NOT arg_SOURCES)
        return()
    endif()
    add_executable(${name} ${arg_SOURCES})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} PRIVATE
        ${arg_DEPS} kdfs_dep_gtest GTest::gtest_main kdfs_warnings)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/bin)
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST TEST_PREFIX ${name}.
                         PROPERTIES LABELS ${arg_LABEL} TIMEOUT 120)
endfunction()

# kdfs_protobuf_library(<name> PROTOS <file>...): paths below this folder; the generated headers are
# included as "kdfs/proto/x.pb.h". A .proto imports another by its path from the root. Built without
# our warnings and without clang-tidy.
function(kdfs_protobuf_library name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "PROTOS")
    set(gen ${CMAKE_BINARY_DIR}/gen)
    file(MAKE_DIRECTORY ${gen})
    if(NOT arg_PROTOS)
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE kdfs_dep_protobuf)
        return()
    endif()
    set(sources "")
    list(TRANSFORM arg_PROTOS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
    foreach(proto IN LISTS arg_PROTOS)
        file(RELATIVE_PATH path ${CMAKE_SOURCE_DIR} ${proto})
        string(REGEX REPLACE "\\.proto$" ".pb" stem ${gen}/${path})
        add_custom_command(
            OUTPUT ${stem}.cc ${stem}.h
            COMMAND protobuf::protoc -I ${CMAKE_SOURCE_DIR} --cpp_out=${gen} ${path}
            # All of them, since a .proto may import its neighbours.
            DEPENDS ${arg_PROTOS} protobuf::protoc
            WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
            COMMENT "protoc ${path}"
            VERBATIM)
        list(APPEND sources ${stem}.cc ${stem}.h)
    endforeach()
    add_library(${name} STATIC ${sources})
    target_include_directories(${name} SYSTEM PUBLIC ${gen})
    target_link_libraries(${name} PUBLIC kdfs_dep_protobuf)
    set_target_properties(${name} PROPERTIES CXX_CLANG_TIDY "")
endfunction()
