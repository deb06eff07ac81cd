# Installs headers, libraries and the package that find_package(sida) reads. One export set per component, so that
# a consumer is asked only for the dependencies of what it uses.
include(CMakePackageConfigHelpers)
set(SIDA_PACKAGE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/sida")

function(sida_install_component component)
  foreach(target ${ARGN})
    get_target_property(header_sets ${target} INTERFACE_HEADER_SETS)
    set(file_set "")
    if(header_sets)
      set(file_set FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
    endif()
    install(TARGETS ${target} EXPORT sida-${component}
      LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
      ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
      RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
      ${file_set}
      INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
  endforeach()
  install(EXPORT sida-${component} NAMESPACE sida:: FILE sida-${component}-targets.cmake
    DESTINATION "${SIDA_PACKAGE_DIR}")
endfunction()

sida_install_component(headers sida_headers)
sida_install_component(sida sida)
if(TARGET sida_cuda)
  sida_install_component(cuda sida_cuda)
endif()
if(TARGET sida_model)
  set_target_properties(sida_model PROPERTIES EXPORT_NAME model)
  sida_install_component(model sida_model)
  install(FILES "${CMAKE_CURRENT_LIST_DIR}/FindSentencePiece.cmake" DESTINATION "${SIDA_PACKAGE_DIR}")
endif()
if(TARGET sida_cli)
  install(TARGETS sida_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/sidaConfig.cmake.in" "${PROJECT_BINARY_DIR}/sidaConfig.cmake"
  INSTALL_DESTINATION "${SIDA_PACKAGE_DIR}" NO_SET_AND_CHECK_MACRO)
# Below 1.0 a minor version may break source or binary compatibility: docs/versioning.md.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/sidaConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/sidaConfig.cmake" "${PROJECT_BINARY_DIR}/sidaConfigVersion.cmake"
  DESTINATION "${SIDA_PACKAGE_DIR}")
