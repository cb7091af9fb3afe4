import Foundation
import SquintFile
import SquintText
import Testing

/// The moment at which tools/fixtures/templates_oracle.py has stopped the clock.
private let oracleDate = TemplateDate(
  year: 2024, month: 7, day: 6, hour: 9, minute: 5, second: 3, microsecond: 42)

private let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures/templates")

/// One template, what it is given, and what transformers makes of it.
struct TemplateCase: CustomStringConvertible {
  let name: String
  let template: String
  let variables: TemplateDictionary
  /// nil where transformers raises an error.
  let expected: String?

  var description: String { name }

  static func read(_ file: URL) throws -> [TemplateCase] {
    let value = try TemplateValue(json: Data(contentsOf: file), place: file.lastPathComponent)
    guard case .list(let items) = value else { return [] }
    return items.compactMap { item in
      guard case .dictionary(let fields) = item, case .string(let name) = fields["name"],
        case .string(let template) = fields["template"], case .dictionary(let variables) = fields["variables"]
      else { return nil }
      var expected: String?
      if case .string(let text) = fields["expected"] { expected = text }
      return TemplateCase(name: name, template: template, variables: variables, expected: expected)
    }
  }

  /// What differs from transformers; nil where nothing does.
  func difference() -> String? {
    do {
      let text = try ChatTemplate(source: template).render(variables: variables, date: oracleDate)
      guard let expected else { return "prints \(text.debugDescription) where transformers raises an error" }
      // By bytes: Swift's == takes different spellings of a character for the same.
      if text.utf8.elementsEqual(expected.utf8) { return nil }
      return "prints \(text.debugDescription), not \(expected.debugDescription)"
    } catch {
      guard let expected else { return nil }
      return "raises '\(error)', not \(expected.debugDescription)"
    }
  }
}

@Suite struct TemplateTests {
  @Test(arguments: ["expressions.json", "models.json"])
  func equalsTransformers(file: String) throws {
    let cases = try TemplateCase.read(fixtures.appendingPathComponent(file))
    #expect(!cases.isEmpty)
    for example in cases {
      if let difference = example.difference() {
        Issue.record("\(file), \(example.name): \(example.template.prefix(300).debugDescription) \(difference)")
      }
    }
  }

  /// Published templates, which are not ours to keep here: see tools/fixtures/templates_published.py.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["SQUINT_TEMPLATE_CASES"] != nil))
  func publishedTemplates() throws {
    let folder = URL(fileURLWithPath: ProcessInfo.processInfo.environment["SQUINT_TEMPLATE_CASES"] ?? "")
    let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      .filter { $0.pathExtension == "json" }.sorted { $0.path < $1.path }
    #expect(!files.isEmpty)
    for file in files {
      let cases = try TemplateCase.read(file)
      var differences: [String] = []
      for example in cases {
        if let difference = example.difference() { differences.append("\(example.name): \(difference)") }
      }
      let name = file.deletingPathExtension().lastPathComponent
      let rendered = cases.count { $0.expected != nil }
      print("\(differences.isEmpty ? "pass" : "FAIL") \(name): \(cases.count) cases, of which \(rendered) print")
      for difference in differences.prefix(3) { print("    \(difference.prefix(1500))") }
      #expect(differences.isEmpty, "\(name)")
    }
  }
}
