import SquintFile
import SquintTemplates
import SquintText

/// The chat templates that a checkpoint has, by name, in the order in which it lists them.
struct ChatTemplates {
  /// A template that a family's program writes conversations with, where checkpoints have none.
  struct Usual: Sendable {
    /// For people.
    let name: String
    let source: String
  }

  private(set) var named: [(name: String, source: String)] = []

  static let defaultName = "default"

  init() {}

  /// What a configuration file gives: one template, a list of several with their names, or an object of them.
  init(json: JSONValue?) {
    if let source = json?.string { add(source) }
    for item in json?.array ?? [] {
      if let source = item["template"]?.string { add(source, name: item["name"]?.string ?? Self.defaultName) }
    }
    for member in json?.object?.members ?? [] {
      if let source = member.value.string { add(source, name: member.key) }
    }
  }

  var isEmpty: Bool { named.isEmpty }

  mutating func add(_ source: String, name: String = defaultName) { named.append((name, source)) }

  /// The template that conversations are written with: the one called "default", or else the first; nil where there is none that
  /// says anything.
  ///
  /// - Parameters:
  ///   - usual: what takes the place of none.
  ///   - notes: takes what was chosen, and what a conversation then is.
  func chosen(of place: String, usual: Usual?, notes: inout [String]) -> String? {
    guard let chosen = named.first(where: { $0.name == Self.defaultName }) ?? named.first else {
      if let usual {
        notes.append("\(place) has no chat template; conversations are written as \(usual.name) has them")
        return usual.source
      }
      notes.append("\(place) has no chat template; ask and chat give the model the words as they are")
      return nil
    }
    let names = named.map { "'\($0.name)'" }.joined(separator: ", ")
    if named.count > 1 {
      let reason = chosen.name == Self.defaultName ? "" : ", the first, for want of one called '\(Self.defaultName)'"
      notes.append("\(place) has the chat templates \(names); '\(chosen.name)' is used\(reason)")
    } else if chosen.name != Self.defaultName {
      notes.append("\(place) has one chat template, \(names); it is used")
    }
    guard chosen.source.contains(where: { !$0.isWhitespace }) else {
      notes.append("the chat template of \(place) is empty; ask and chat give the model the words as they are")
      return nil
    }
    do {
      _ = try ChatTemplate(source: chosen.source)
    } catch {
      notes.append("\(place): \(error.message); ask works with --raw alone")
    }
    return chosen.source
  }
}
