import SquintFile

/// Modules of a checkpoint for which there is no use, such as one that speaks.
struct DroppedModules: Sendable {
  /// Those that are there, with how many tensors.
  let modules: [(name: String, tensors: Int)]

  /// - Parameter names: what the names of their tensors begin with, up to the first dot.
  init(_ names: [String], of source: any TensorSource) {
    modules = names.compactMap { name in
      let count = source.tensors.count { $0.name.hasPrefix(name + ".") }
      return count > 0 ? (name, count) : nil
    }
  }

  /// Says of their tensors that they are left out.
  var names: NameMap { NameMap(module: "decoder", stems: [], ignoredPrefixes: modules.map { $0.name + "." }) }

  /// What people should know of them; nil where there are none.
  var note: String? {
    guard !modules.isEmpty else { return nil }
    let list = modules.map { "\($0.name) (\(grouped($0.tensors)) tensors)" }.joined(separator: ", ")
    return "left out, since the answer is text: \(list)"
  }
}
