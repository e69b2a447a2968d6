# What kdfs takes from the system. A target of kdfs names these, never a library file:
#   kdfs_dep_uring kdfs_dep_fuse kdfs_dep_rocksdb kdfs_dep_xxhash kdfs_dep_openssl
#   kdfs_dep_protobuf kdfs_dep_json kdfs_dep_spdlog kdfs_dep_options kdfs_dep_threads kdfs_dep_gtest
#   kdfs_dep_allocator

if(DEFINED ENV{KDFS_FUSE_PREFIX})
    set(KDFS_FUSE_PREFIX $ENV{KDFS_FUSE_PREFIX})
endif()
set(KDFS_FUSE_PREFIX /opt/kdfs/libfuse CACHE PATH
    "Prefix of a libfuse newer than the system's, see tools/setup_libfuse.sh; then /usr/local")

find_package(PkgConfig QUIET)
find_package(Threads QUIET)
find_package(OpenSSL QUIET)
find_package(Protobuf QUIET)
find_package(nlohmann_json QUIET)
find_package(spdlog QUIET)
find_package(GTest QUIET)
find_package(Boost QUIET COMPONENTS program_options)
find_path(KDFS_XXHASH_INCLUDE xxhash.h)

option(KDFS_JEMALLOC "Programs take their memory from jemalloc; not with a sanitizer" OFF)

set(missing "")
if(PKG_CONFIG_FOUND)
    set(saved_path "$ENV{PKG_CONFIG_PATH}")
    foreach(prefix /usr/local ${KDFS_FUSE_PREFIX}) # the last one is searched first
        set(lib ${prefix}/lib)
        set(ENV{PKG_CONFIG_PATH}
            "${lib}/pkgconfig:${lib}/${CMAKE_LIBRARY_ARCHITECTURE}/pkgconfig:$ENV{PKG_CONFIG_PATH}")
    endforeach()
    # Looked up anew each time, since tools/setup.sh may have built a newer one since.
    unset(__pkg_config_checked_KDFS_FUSE CACHE)
    unset(pkgcfg_lib_KDFS_FUSE_fuse3 CACHE)
    pkg_check_modules(KDFS_FUSE QUIET IMPORTED_TARGET fuse3>=3.14)
    set(ENV{PKG_CONFIG_PATH} "${saved_path}")
    pkg_check_modules(KDFS_URING QUIET IMPORTED_TARGET liburing>=2.3)
    pkg_check_modules(KDFS_JEMALLOC_LIB QUIET IMPORTED_TARGET jemalloc>=5)
    pkg_check_modules(KDFS_ROCKSDB QUIET IMPORTED_TARGET rocksdb>=7.8)
else()
    list(APPEND missing "pkg-config")
endif()

# kdfs_dependency(<name> <found> <what is missing otherwise> <library>...) declares kdfs_dep_<name>.
function(kdfs_dependency name found label)
    if(found)
        add_library(kdfs_dep_${name} INTERFACE)
        target_link_libraries(kdfs_dep_${name} INTERFACE ${ARGN})
    else()
        set(missing "${missing};${label}" PARENT_SCOPE)
    endif()
endfunction()

kdfs_dependency(threads "${Threads_FOUND}" "threads" Threads::Threads)
kdfs_dependency(openssl "${OPENSSL_FOUND}" "OpenSSL" OpenSSL::SSL OpenSSL::Crypto)
kdfs_dependency(protobuf "${Protobuf_FOUND}" "Protocol Buffers and protoc" protobuf::libprotobuf)
kdfs_dependency(json "${nlohmann_json_FOUND}" "nlohmann-json" nlohmann_json::nlohmann_json)
kdfs_dependency(spdlog "${spdlog_FOUND}" "spdlog" spdlog::spdlog)
kdfs_dependency(gtest "${GTest_FOUND}" "GoogleTest with gmock" GTest::gtest GTest::gmock)
kdfs_dependency(options "${Boost_FOUND}" "Boost.Program_options" Boost::program_options)
kdfs_dependency(fuse "${KDFS_FUSE_FOUND}" "libfuse >= 3.14" PkgConfig::KDFS_FUSE)
kdfs_dependency(uring "${KDFS_URING_FOUND}" "liburing >= 2.3" PkgConfig::KDFS_URING)
kdfs_dependency(rocksdb "${KDFS_ROCKSDB_FOUND}" "RocksDB >= 7.8" PkgConfig::KDFS_ROCKSDB)
kdfs_dependency(xxhash "${KDFS_XXHASH_INCLUDE}" "xxHash")

if(KDFS_JEMALLOC)
    kdfs_dependency(allocator "${KDFS_JEMALLOC_LIB_FOUND}" "jemalloc >= 5"
                    PkgConfig::KDFS_JEMALLOC_LIB)
else()
    add_library(kdfs_dep_allocator INTERFACE)
endif()

if(missing)
    list(REMOVE_ITEM missing "")
    list(JOIN missing ", " missing)
    message(FATAL_ERROR "Missing packages: ${missing}.\nRun tools/setup.sh, then configure again.")
endif()

# Header only: the distribution's shared library has no run-time choice of AVX2 and is 3 to 4
# times slower.
target_compile_definitions(kdfs_dep_xxhash INTERFACE XXH_INLINE_ALL)
target_include_directories(kdfs_dep_xxhash SYSTEM INTERFACE ${KDFS_XXHASH_INCLUDE})
target_compile_definitions(kdfs_dep_fuse INTERFACE FUSE_USE_VERSION=314)
message(STATUS "libfuse ${KDFS_FUSE_VERSION} (${KDFS_FUSE_INCLUDEDIR}), "
               "RocksDB ${KDFS_ROCKSDB_VERSION}, liburing ${KDFS_URING_VERSION}, "
               "protobuf ${Protobuf_VERSION}")
