import Squint
import SquintFile

/// A plan as an image: a stacked column for each phase against the line of the budget, as SVG.
///
/// A viewer sets the texts in a font of its own. Each has the room that it takes in a wide one, so that none runs into another, out
/// of the image, or into the budget's line.
struct PlanDrawing {
  private let plan: SessionPlan
  private let parts: [SessionPlan.Part]
  /// Of each phase.
  private let sizes: [[SessionPlan.PartName: Int]]
  private var body = ""

  private static let margin = 24.0
  private static let column = 104.0
  private static let step = 160.0
  private static let legendStep = 36.0
  private static let grey = "#495057"

  init(_ plan: SessionPlan) {
    self.plan = plan
    parts = plan.parts
    sizes = plan.phases.map { plan.sizes(in: $0) }
  }

  /// The image under `title`, which is on one line.
  static func svg(_ plan: SessionPlan, title: String) -> String {
    var drawing = PlanDrawing(plan)
    return drawing.draw(title)
  }

  private mutating func draw(_ title: String) -> String {
    // A budget far above the columns would flatten them; then it is named, not drawn.
    let drawsBudget = plan.budget < 2 * max(plan.peak, 1)
    let most = max(drawsBudget ? max(plan.peak, plan.budget) : plan.peak, 1)
    let tick = Self.tick(upTo: most)
    let highest = Double(tick) * (Double(most) / Double(tick)).rounded(.up)
    let ticks = stride(from: 0, through: Int(highest), by: tick).map { ($0, "\(grouped($0 >> 20)) MiB") }

    let left = Self.margin + (ticks.map { Self.width($0.1, 14) }.max() ?? 0) + 8
    let right = left + Self.step * Double(plan.phases.count)
    let budget = "budget \(readableSize(plan.budget))"
    let legend = right + (drawsBudget ? 20 + Self.width(budget, 14) : 0) + Self.margin
    let width =
      legend + 22 + (parts.map { max(Self.width(label($0), 14), Self.width($0.meaning, 12)) }.max() ?? 0) + Self.margin

    var top = drawHeading(title, width: width - 2 * Self.margin)
    // Room for the number above a column that reaches the top.
    top += 28
    let height = max(300, Double(parts.count) * Self.legendStep)
    let bottom = top + height
    func y(_ bytes: Int) -> Double { bottom - height * Double(bytes) / highest }

    for (value, text) in ticks {
      line(left, right, y(value), "stroke=\"#dee2e6\"")
      add(text, x: left - 8, y: y(value) + 5, size: 14, anchor: "end", fill: Self.grey)
    }
    for index in plan.phases.indices {
      drawColumn(index, x: left + (Self.step - Self.column) / 2 + Double(index) * Self.step, bottom: bottom, y: y)
    }
    if drawsBudget {
      line(left, right + 10, y(plan.budget), "stroke=\"#c1121f\" stroke-width=\"2\" stroke-dasharray=\"7 4\"")
      add(budget, x: right + 16, y: y(plan.budget) + 5, size: 14, fill: "#c1121f")
    }
    // The numbers last: above their columns, or above the budget's line where that is in their way.
    for (index, phase) in plan.phases.enumerated() {
      var base = y(sizes[index].values.reduce(0, +)) - 7
      let line = y(plan.budget)
      if drawsBudget, line > base - 16, line < base + 6 { base = line - 6 }
      add(
        readableSize(phase.byteCount), x: left + (Double(index) + 0.5) * Self.step, y: base, size: 14, anchor: "middle",
        bold: true, isHaloed: true)
    }
    drawLegend(x: legend, bottom: bottom)
    return """
      <svg xmlns="http://www.w3.org/2000/svg" width="\(fixed(width.rounded(.up), 0))" height="\(fixed(bottom + 60, 0))" \
      font-family="sans-serif" font-size="14" fill="#212529">
      <rect width="100%" height="100%" fill="white"/>
      \(body)</svg>

      """
  }

  // MARK: Parts of the image

  /// Draws the title and what was planned, on as many lines as that takes; returns where they end.
  private mutating func drawHeading(_ title: String, width: Double) -> Double {
    var y = 34.0
    for text in Self.wrapped("Memory of \(title), phase by phase", 19, bold: true, width: width) {
      add(text, x: Self.margin, y: y, size: 19, bold: true)
      y += 24
    }
    let verdict =
      "\(plan.summary): at most \(readableSize(plan.peak)) of the \(readableSize(plan.budget)) that are "
      + (plan.options.memory == nil ? "free" : "allowed")
    for text in ([verdict] + [plan.streaming].compactMap { $0 }).flatMap({ Self.wrapped($0, 14, width: width) }) {
      add(text, x: Self.margin, y: y, size: 14, fill: Self.grey)
      y += 20
    }
    return y - 20
  }

  private mutating func drawColumn(_ index: Int, x: Double, bottom: Double, y: (Int) -> Double) {
    let phase = plan.phases[index]
    var total = 0
    for part in parts {
      guard let bytes = sizes[index][part.name], bytes > 0 else { continue }
      let height = y(total) - y(total + bytes)
      body += """
        <rect x="\(fixed(x, 1))" y="\(fixed(y(total + bytes), 1))" width="\(fixed(Self.column, 0))" \
        height="\(fixed(height, 1))" fill="\(part.colour)"><title>\(Self.escaped(part.name.text)): \
        \(readableSize(bytes))</title></rect>

        """
      if height >= 18, Self.width(part.name.text, 12) <= Self.column - 4 {
        add(
          part.name.text, x: x + Self.column / 2, y: y(total) - height / 2 + 5, size: 12, anchor: "middle",
          fill: "white")
      }
      total += bytes
    }
    add(phase.name.rawValue, x: x + Self.column / 2, y: bottom + 24, size: 14, anchor: "middle", bold: true)
    add(
      phase.name.meaning, x: x + Self.column / 2, y: bottom + 43, size: 12, anchor: "middle",
      fill: Self.grey)
  }

  /// From the top down, as the columns are stacked.
  private mutating func drawLegend(x: Double, bottom: Double) {
    for (index, part) in parts.enumerated() {
      let y = bottom - 22 - Double(index) * Self.legendStep
      body += """
        <rect x="\(fixed(x, 1))" y="\(fixed(y - 12, 1))" width="14" height="14" fill="\(part.colour)"/>

        """
      add(label(part), x: x + 22, y: y, size: 14)
      add(part.meaning, x: x + 22, y: y + 16, size: 12, fill: Self.grey)
    }
  }

  private func label(_ part: SessionPlan.Part) -> String {
    "\(part.name.text), \(readableSize(sizes.map { $0[part.name] ?? 0 }.max() ?? 0))"
  }

  // MARK: Elements

  private mutating func line(_ from: Double, _ to: Double, _ y: Double, _ attributes: String) {
    body += """
      <line x1="\(fixed(from, 1))" x2="\(fixed(to, 1))" y1="\(fixed(y, 1))" y2="\(fixed(y, 1))" \(attributes)/>

      """
  }

  /// - Parameter isHaloed: whether the text keeps the lines behind it away.
  private mutating func add(
    _ text: String, x: Double, y: Double, size: Int, anchor: String = "start", bold: Bool = false,
    fill: String = "#212529", isHaloed: Bool = false
  ) {
    guard !text.isEmpty else { return }
    body += """
      <text x="\(fixed(x, 1))" y="\(fixed(y, 1))" font-size="\(size)" text-anchor="\(anchor)" \
      fill="\(fill)"\(bold ? " font-weight=\"bold\"" : "")\
      \(isHaloed ? " stroke=\"white\" stroke-width=\"4\" paint-order=\"stroke\"" : "")>\(Self.escaped(text))</text>

      """
  }

  private static func escaped(_ text: String) -> String {
    text.map { $0 == "<" ? "&lt;" : $0 == "&" ? "&amp;" : String($0) }.joined()
  }

  /// The distance of the lines that are drawn across, in bytes: about five of them up to `bytes`.
  private static func tick(upTo bytes: Int) -> Int {
    var decade = 1 << 20
    while true {
      for factor in [1, 2, 5] where bytes / (decade * factor) <= 5 { return decade * factor }
      decade *= 10
    }
  }

  // MARK: Texts

  /// The width of `text` in DejaVu Sans, one of the widest fonts that people have, at `size` pixels.
  static func width(_ text: String, _ size: Double, bold: Bool = false) -> Double {
    let hundredths = text.unicodeScalars.reduce(0) { sum, scalar in
      guard scalar.isASCII, scalar.value >= 32 else { return sum + (scalar.isASCII ? 0 : 105) }
      return sum + widths[Int(scalar.value) - 32]
    }
    return Double(hundredths) / 100 * size * (bold ? 1.16 : 1)
  }

  /// Of ASCII from the space on, in hundredths of the size.
  private static let widths = [
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 84,
    84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69, 61,
    69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59,
    82, 59, 59, 52, 64, 34, 64, 84,
  ]

  /// `text` in lines of at most `width`, broken between words, or within one that is longer than a line.
  private static func wrapped(_ text: String, _ size: Double, bold: Bool = false, width: Double) -> [String] {
    func fits(_ text: String) -> Bool { Self.width(text, size, bold: bold) <= width }
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
      if line.isEmpty ? fits(String(word)) : fits("\(line) \(word)") {
        line += line.isEmpty ? String(word) : " \(word)"
        continue
      }
      if !line.isEmpty { lines.append(line) }
      line = ""
      for character in word {
        if !line.isEmpty, !fits(line + String(character)) {
          lines.append(line)
          line = ""
        }
        line.append(character)
      }
    }
    return lines + (line.isEmpty ? [] : [line])
  }
}
