#include "bench/bar_chart.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string_view>

namespace sida::bench {
namespace {

// In user units, which are pixels at 100 %.
constexpr double kLabelWidth = 190;
constexpr double kPlotWidth = 520;
constexpr double kNoteWidth = 190;
constexpr double kWidth = kLabelWidth + kPlotWidth + kNoteWidth;
constexpr double kRow = 34;
constexpr double kBar = 20;
constexpr double kLine = 18;

constexpr std::string_view kFirstColour = "#3b6ea5";
constexpr std::string_view kSecondColour = "#e08a3c";
constexpr std::string_view kMarkColour = "#111111";
constexpr std::string_view kTextColour = "#222222";
constexpr std::string_view kGridColour = "#dddddd";

std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", std::round(value * 100) / 100);
  return text.data();
}

std::string escaped(std::string_view text) {
  std::string out;
  for (char const c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string rectangle(double x, double y, double width, double height, std::string_view colour) {
  return "<rect x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" + number(width) + "\" height=\"" +
         number(height) + "\" fill=\"" + std::string(colour) + "\"/>\n";
}

std::string line(double x1, double y1, double x2, double y2, std::string_view colour, double width) {
  return "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) + "\" y2=\"" + number(y2) +
         "\" stroke=\"" + std::string(colour) + "\" stroke-width=\"" + number(width) + "\"/>\n";
}

std::string text(double x, double y, std::string_view anchor, std::string_view style, std::string_view words) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + std::string(anchor) + "\" " +
         std::string(style) + ">" + escaped(words) + "</text>\n";
}

/// The largest of 1, 2 and 5 times a power of ten that gives at least five steps up to `end`.
double tick_step(double end) {
  double const power = std::pow(10.0, std::floor(std::log10(end / 5)));
  for (double const times : {5.0, 2.0}) {
    if (times * power * 5 <= end) return times * power;
  }
  return power;
}

std::string legend(BarChart const& chart, double y) {
  struct Entry {
    std::string_view name;
    std::string_view colour;
    bool is_mark;
  };
  std::array<Entry, 3> const entries = {{{chart.first_name, kFirstColour, false},
                                         {chart.second_name, kSecondColour, false},
                                         {chart.mark_name, kMarkColour, true}}};
  std::string out;
  double x = kLabelWidth;
  for (auto const& entry : entries) {
    out +=
        entry.is_mark ? line(x + 6, y - 12, x + 6, y + 2, entry.colour, 3) : rectangle(x, y - 10, 12, 12, entry.colour);
    out += text(x + 18, y, "start", "font-size=\"13\"", entry.name);
    x += 44 + 7 * static_cast<double>(entry.name.size());
  }
  return out;
}

std::string bar(Bar const& bar, double end, double y) {
  auto const place = [end](double value) { return kLabelWidth + kPlotWidth * std::clamp(value / end, 0.0, 1.0); };
  double const top = y + (kRow - kBar) / 2;
  double const base = top + kBar - 5;
  double const split = place(bar.first);
  double const tip = place(bar.first + bar.second);
  std::string out = text(kLabelWidth - 10, base, "end", "font-size=\"13\"", bar.label);
  out += rectangle(kLabelWidth, top, split - kLabelWidth, kBar, kFirstColour);
  out += rectangle(split, top, tip - split, kBar, kSecondColour);
  if (bar.first + bar.second > end) {  // two white slashes: it goes on
    for (double const x : {tip - 26, tip - 18}) out += line(x, top + kBar + 2, x + 8, top - 2, "#ffffff", 3);
  }
  if (bar.mark > 0 && bar.mark <= end)
    out += line(place(bar.mark), top - 4, place(bar.mark), top + kBar + 4, kMarkColour, 3);
  // A mark beyond the bar's tip must not run through the note.
  double const note = std::max(tip, bar.mark <= end ? place(bar.mark) : tip) + 8;
  return out + text(note, base, "start", "font-size=\"13\"", bar.note);
}

std::string axis(BarChart const& chart, double top, double bottom) {
  std::string out;
  double const step = tick_step(chart.axis_end);
  for (int i = 0; i * step <= chart.axis_end * 1.0001; ++i) {
    double const x = kLabelWidth + kPlotWidth * (i * step / chart.axis_end);
    out += line(x, top, x, bottom, kGridColour, 1);
    out += text(x, bottom + kLine, "middle", "font-size=\"12\"", number(i * step));
  }
  return out + text(kLabelWidth + kPlotWidth / 2, bottom + 2.2 * kLine, "middle", "font-size=\"13\"", chart.axis_name);
}

}  // namespace

std::string to_svg(BarChart const& chart) {
  double const legend_y = 40 + kLine * static_cast<double>(chart.subtitles.size()) + 14;
  double const top = legend_y + 12;
  double const bottom = top + kRow * static_cast<double>(chart.bars.size());
  double const height = bottom + 3 * kLine;
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(kWidth) + " " + number(height) +
                    "\" width=\"" + number(kWidth) + "\" height=\"" + number(height) +
                    "\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" fill=\"" + std::string(kTextColour) +
                    "\">\n";
  out += "<title>" + escaped(chart.title) + "</title>\n";
  out += rectangle(0, 0, kWidth, height, "#ffffff");
  out += text(16, 28, "start", "font-size=\"18\" font-weight=\"bold\"", chart.title);
  double y = 28;
  for (auto const& subtitle : chart.subtitles) out += text(16, y += kLine + 2, "start", "font-size=\"12.5\"", subtitle);
  out += legend(chart, legend_y);
  out += axis(chart, top, bottom);
  y = top;
  for (auto const& each : chart.bars) {
    out += bar(each, chart.axis_end, y);
    y += kRow;
  }
  return out + "</svg>\n";
}

}  // namespace sida::bench
