#pragma once

#include <string>
#include <vector>

namespace sida::bench {

/// A bar of two parts, and a mark across it.
struct Bar {
  std::string label;
  double first = 0;
  double second = 0;
  double mark = 0;
  std::string note;  ///< behind the bar
};

/// Horizontal bars over one axis from 0. A bar beyond the end of the axis is cut and shown as cut.
struct BarChart {
  std::string title;
  std::vector<std::string> subtitles;  ///< one line each
  std::string first_name;
  std::string second_name;
  std::string mark_name;
  std::string axis_name;
  double axis_end = 1;
  std::vector<Bar> bars;
};

/// The chart as an SVG document that needs nothing else.
std::string to_svg(BarChart const& chart);

}  // namespace sida::bench
