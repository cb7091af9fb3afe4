import Foundation
import Squint
import SquintFile
import Testing

/// The plan as an image: no text runs into another, out of the image, or into the line of the budget.
@Suite struct PlanDrawingTests {
  private struct Text {
    let text: String
    let x: ClosedRange<Double>
    let y: ClosedRange<Double>

    func touches(_ other: Text) -> Bool { x.overlaps(other.x) && y.overlaps(other.y) }
  }

  /// Of DejaVu Sans and DejaVu Sans Bold from the space on, in hundredths of the size; what is not ASCII has the width of its size.
  private static let regular = [
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 84,
    84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69, 61,
    69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59,
    82, 59, 59, 52, 64, 34, 64, 84,
  ]
  private static let bold = [
    35, 46, 52, 84, 70, 100, 87, 31, 46, 46, 52, 84, 38, 42, 38, 37, 70, 70, 70, 70, 70, 70, 70, 70, 70, 70, 40, 40, 84,
    84, 84, 58, 100, 77, 76, 73, 83, 68, 68, 82, 84, 37, 37, 77, 64, 100, 84, 85, 73, 85, 77, 72, 68, 81, 77, 110, 77,
    72,
    73, 46, 37, 46, 84, 50, 50, 67, 72, 59, 72, 68, 44, 72, 71, 34, 34, 67, 34, 104, 71, 69, 72, 72, 49, 60, 48, 71, 65,
    92, 65, 65, 58, 71, 37, 71, 84,
  ]

  private func width(_ text: String, _ size: Double, _ widths: [Int]) -> Double {
    let hundredths = text.unicodeScalars.reduce(0) { $0 + ($1.isASCII ? widths[Int($1.value) - 32] : 100) }
    return Double(hundredths) / 100 * size
  }

  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func attribute(_ name: String, _ tag: String) -> String? {
    guard let start = tag.range(of: " \(name)=\"") else { return nil }
    return String(tag[start.upperBound...].prefix { $0 != "\"" })
  }

  private func texts(_ svg: String) -> [Text] {
    svg.components(separatedBy: "<text").dropFirst().map { element in
      let tag = String(element.prefix { $0 != ">" })
      let text = String(element.dropFirst(tag.count + 1).prefix { $0 != "<" })
        .replacingOccurrences(of: "&lt;", with: "<").replacingOccurrences(of: "&amp;", with: "&")
      let size = Double(attribute("font-size", tag) ?? "14") ?? 14
      let width = width(text, size, tag.contains("bold") ? Self.bold : Self.regular)
      let (x, y) = (Double(attribute("x", tag)!)!, Double(attribute("y", tag)!)!)
      let left =
        switch attribute("text-anchor", tag) {
        case "end": x - width
        case "middle": x - width / 2
        default: x
        }
      return Text(text: text, x: left...left + width, y: y - size * 0.74...y + size * 0.22)
    }
  }

  private func expectTidy(_ svg: String, _ what: String) throws {
    let texts = texts(svg)
    let head = String(svg.prefix { $0 != ">" })
    let (width, height) = (Double(attribute("width", head)!)!, Double(attribute("height", head)!)!)
    for (index, text) in texts.enumerated() {
      #expect(text.x.lowerBound >= 0 && text.x.upperBound <= width, "\(what): \(text)")
      #expect(text.y.lowerBound >= 0 && text.y.upperBound <= height, "\(what): \(text)")
      for other in texts[..<index] { #expect(!text.touches(other), "\(what): \(text), \(other)") }
    }
    for line in svg.components(separatedBy: "<line").filter({ $0.contains("dasharray") }) {
      let (x, y) = (Double(attribute("x1", line)!)!...Double(attribute("x2", line)!)!, Double(attribute("y1", line)!)!)
      for text in texts where text.x.overlaps(x) {
        #expect(!text.y.contains(y), "\(what): \(text), the budget at \(y)")
      }
    }
  }

  @Test func noTextMeetsAnother() throws {
    let seeing = try ModelFile(path: folder.seeingModel("smolvlm"))
    for (number, name) in [
      "tiny", String(repeating: "A model of a long name, ", count: 9), "W" + String(repeating: "模", count: 90),
    ]
    .enumerated() {
      var plan = try ModelFilePlan(seeing)
      plan.metadata["general.name"] = .string(name)
      let path = "\(folder.path)/named-\(number).squint"
      try write(plan, from: seeing, to: path)
      let drawing = "\(folder.path)/plan.svg"
      let peak = try #require(try squint("plan", path, "--json").json()["peak"] as? Int)
      for memory in [nil, peak + 1, peak + peak / 40, peak + peak / 20, peak * 2 - 1, 1 << 40, peak * 9 / 10] {
        for more in [[], ["--chat"], ["--context", "200000", "--beams", "2"]] {
          let options = (memory.map { ["--memory", "\($0)"] } ?? []) + more + ["--svg", drawing]
          unlink(drawing)
          guard try squint(["plan", path] + options).status == 0 else { continue }
          try expectTidy(String(contentsOfFile: drawing, encoding: .utf8), "\(name.prefix(10)) \(options)")
        }
      }
    }
  }

  @Test func theFigureOfTheDocumentation() throws {
    let figure = fixtures.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(
      "docs/plan.svg")
    try expectTidy(String(contentsOf: figure, encoding: .utf8), "docs/plan.svg")
  }
}
