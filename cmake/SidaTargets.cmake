option(SIDA_WERROR "Treat warnings as errors" OFF)

# Settings that every target of sida gets; PRIVATE, so that none reaches a consumer.
function(sida_target_settings target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  set(options -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
    # Exactness: no contraction behind the source's back, so that every path rounds where the code says.
    -ffp-contract=off)
  if(SIDA_WERROR)
    list(APPEND options -Werror)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 finds overlapping copies in std::string's operator+ where there are none (its bug 105651).
    list(APPEND options -Wno-restrict)
  endif()
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${options}>")
  if(SIDA_SANITIZE)
    # PUBLIC within this build, since sanitized and plain objects don't mix; an installed library asks for nothing.
    target_compile_options(${target} PUBLIC
      "$<BUILD_INTERFACE:-fsanitize=${SIDA_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
    target_link_options(${target} PUBLIC $<BUILD_INTERFACE:-fsanitize=${SIDA_SANITIZE}>)
  endif()
endfunction()

# A shared library exports sida's own names only. Hidden visibility doesn't reach the instantiations of the
# standard library's templates, which would otherwise be shared with, and replaced by, those of the host program.
set(SIDA_VERSION_SCRIPT "${CMAKE_CURRENT_LIST_DIR}/sida.map")
function(sida_limit_exports target)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "SHARED_LIBRARY" AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_link_options(${target} PRIVATE "LINKER:--version-script=${SIDA_VERSION_SCRIPT}")
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${SIDA_VERSION_SCRIPT}")
  endif()
endfunction()
