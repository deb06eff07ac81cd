# Settings that every target of sida gets; PRIVATE, so that none reaches a consumer.
function(sida_target_settings target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
    $<$<BOOL:${SIDA_WERROR}>:-Werror>
    # Exactness: no contraction behind the source's back, so that every path rounds where the code says.
    -ffp-contract=off)
  if(SIDA_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${SIDA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${SIDA_SANITIZE})
  endif()
endfunction()

option(SIDA_WERROR "Treat warnings as errors" OFF)
