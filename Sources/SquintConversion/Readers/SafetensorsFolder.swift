import SquintFile

/// Chooses which of a folder's safetensors files are its checkpoint.
///
/// In transformers model.safetensors comes first, then what the index names (modeling_utils.py,
/// `_get_resolved_checkpoint_files`). In folders as people have them an index may be left over from other files, and files may be
/// missing: what is whole is taken, with a note where something else would have come first.
struct SafetensorsFolder {
  private let path: String
  private let names: [String]
  private let single = "model.safetensors"
  private static let indexEnding = ".safetensors.index.json"

  /// - Throws: `SquintError.noInput` where the folder cannot be read.
  init(path: String) throws(SquintError) {
    self.path = path
    // Those that begin with a dot are what systems keep beside files.
    names = try fileNames(inFolder: path).filter { !$0.hasPrefix(".") }
  }

  /// Opens the checkpoint.
  ///
  /// - Throws: `SquintError.noInput` where files are missing, which it names; `.badData` where one is broken.
  func open() throws(SquintError) -> SafetensorsSource {
    let indexName = indexName
    let index = indexName.map { name in Result { () throws(SquintError) in try Index(name, in: path) } }
    let listed = (try? index?.get())?.files ?? []
    var failure: SquintError?
    if names.contains(single), !listed.contains(single) {
      switch attempt([single]) {
      case .success(var source):
        guard let indexName else { return source }
        if let index = try? index?.get(), !index.isIn(source), case .success(var shards) = attempt(index) {
          shards.notes.append(
            "\(path): \(single) lacks tensors that \(indexName) names; the files of the index are used")
          return shards
        }
        source.notes.append("\(path): \(indexName) is not followed; \(single) is used")
        return source
      case .failure(let error): failure = error
      }
    }
    if let indexName, let index {
      switch index.flatMap(attempt) {
      case .success(var source):
        if failure != nil { source.notes.append("\(path): \(single) is not whole; the files of \(indexName) are used") }
        return source
      case .failure(let error): failure = failure ?? error
      }
    }
    if var source = try others(beside: listed, index: try? index?.get()) {
      if failure != nil {
        let what = [names.contains(single) && !listed.contains(single) ? single : nil, indexName].compactMap { $0 }
        source.notes.append(
          "\(path): \(what.joined(separator: " and ")) \(what.count == 1 ? "is" : "are") not followed; "
            + "\(source.fileCount == 1 ? "the whole file" : "\(source.fileCount) whole files") of other names "
            + "\(source.fileCount == 1 ? "is" : "are") used")
      }
      return source
    }
    throw failure ?? nothing
  }

  /// The index of the model, or the only one.
  private var indexName: String? {
    let indexes = names.filter { $0.hasSuffix(Self.indexEnding) }
    return indexes.first { $0 == "model" + Self.indexEnding } ?? (indexes.count == 1 ? indexes[0] : nil)
  }

  private func attempt(_ files: [String]) -> Result<SafetensorsSource, SquintError> {
    Result { () throws(SquintError) in try SafetensorsSource(paths: files.map { "\(path)/\($0)" }) }
  }

  private func attempt(_ index: Index) -> Result<SafetensorsSource, SquintError> {
    Result { () throws(SquintError) in
      let missing = index.files.filter { !names.contains($0) }
      guard missing.isEmpty else { throw incomplete(missing, of: index.path) }
      // Shards of the same set that it does not list are a part of the checkpoint all the same.
      let sets = Set(index.files.compactMap { Shard(name: $0)?.set })
      let unlisted = names.filter { name in
        !index.files.contains(name) && Shard(name: name).map { sets.contains($0.set) } == true
      }
      var source = try SafetensorsSource(
        paths: (index.files + unlisted).map { "\(path)/\($0)" }, placed: index.places)
      if !unlisted.isEmpty {
        source.notes.append(
          "\(index.path): it does not list \(unlisted.map(printable).joined(separator: ", ")); read all the same")
      }
      source.notes += index.remarks(on: source, folder: path)
      return source
    }
  }

  /// Files that neither the index names nor are called model.safetensors; nil where there are none that can be a checkpoint.
  ///
  /// - Throws: `SquintError.noInput` where shards are missing, `.badData` where nothing tells which of several sets is meant.
  private func others(beside listed: [String], index: Index?) throws(SquintError) -> SafetensorsSource? {
    let rest = names.filter { $0.hasSuffix(".safetensors") && $0 != single && !listed.contains($0) }
    let sets = Dictionary(grouping: rest.compactMap(Shard.init), by: \.set).sorted { $0.key < $1.key }
    let whole = sets.filter { Set($0.value.map(\.number)).count == $0.value[0].count }
    if whole.count > 1 {
      let all = whole.map(\.key).joined(separator: " and ")
      throw .badData(path, "\(all) are whole checkpoints both; keep one of them")
    }
    let files: [String]
    if index == nil, indexName != nil, whole.isEmpty {
      // Nothing tells whether they are all.
      return nil
    } else if let set = whole.first {
      files = set.value.map(\.name).sorted()
    } else if let set = sets.first, index == nil, !names.contains(single) {
      let there = Set(set.value.map(\.number))
      let missing = (1...set.value[0].count).lazy.filter { !there.contains($0) }.prefix(Self.mostNamed + 1)
      throw incomplete(missing.map { set.value[0].sibling($0) }, of: path)
    } else {
      files = rest.filter { Shard(name: $0) == nil }
    }
    guard !files.isEmpty else { return nil }
    if let index {
      // Beside an index other files must hold what it lists.
      guard case .success(let source) = attempt(files), index.isIn(source) else { return nil }
      return source
    }
    return names.contains(single) ? nil : try attempt(files).get()
  }

  private static let mostNamed = 5

  private func incomplete(_ missing: [String], of place: String) -> SquintError {
    let unfinished = missing.compactMap { file in names.first { $0.hasPrefix(file) } }.first
    let hint = unfinished.map { " (the download of \(printable($0)) did not end)" } ?? ""
    let more = missing.count > Self.mostNamed ? " and others" : ""
    return SquintError(
      .noInput,
      "\(place): \(missing.prefix(Self.mostNamed).map(printable).joined(separator: ", "))\(more) "
        + "\(missing.count == 1 ? "is" : "are") missing\(hint); download the checkpoint again")
  }

  private var nothing: SquintError {
    let endings = [".bin", ".pt", ".pth", ".ckpt"]
    let pickles = names.filter { name in endings.contains { name.hasSuffix($0) } }
    if let pickle = pickles.first(where: { $0 != "training_args.bin" }) {
      return .badData(
        path,
        "the weights are a pickle (\(printable(pickle))), which runs code when it is read; convert them with "
          + "\(ForeignFile.pickleTool), or load them with transformers and save them with save_pretrained, which writes safetensors"
      )
    }
    if let unfinished = names.first(where: { $0.contains(".safetensors.") && !$0.hasSuffix(Self.indexEnding) }) {
      return SquintError(
        .noInput,
        "\(path): the download of the weights did not end (\(printable(unfinished))); download the checkpoint again")
    }
    return SquintError(
      .noInput, "\(path): there is no *.safetensors file in this folder; save the checkpoint with safetensors")
  }
}

/// One of several files of a checkpoint: `STEM-00002-of-00003.safetensors`.
private struct Shard {
  let name: String
  let stem: Substring
  let number: Int
  let count: Int

  /// nil where `name` is no such name.
  init?(name: String) {
    let ending = ".safetensors"
    guard name.hasSuffix(ending) else { return nil }
    let parts = name.dropLast(ending.count).split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count >= 4, parts[parts.count - 2] == "of", let count = Int(parts[parts.count - 1]),
      let number = Int(parts[parts.count - 3]), (1...count).contains(number),
      parts[parts.count - 1].count == Self.digits
    else { return nil }
    self.name = name
    stem = name.prefix(name.count - ending.count - 2 * Self.digits - "--of-".count)
    self.number = number
    self.count = count
  }

  private static let digits = 5

  /// How people call all of them.
  var set: String { "\(stem)-*-of-\(Self.padded(count))" }

  /// The name of another one.
  func sibling(_ number: Int) -> String { "\(stem)-\(Self.padded(number))-of-\(Self.padded(count)).safetensors" }

  private static func padded(_ number: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
}

/// `model.safetensors.index.json`: which tensor is in which file.
private struct Index {
  let path: String
  /// Sorted.
  let files: [String]
  /// By the tensor's name.
  let places: [ExactString: String]

  /// - Throws: `SquintError.badData` where it is none.
  init(_ name: String, in folder: String) throws(SquintError) {
    path = "\(folder)/\(name)"
    guard let map = try JSONValue.read(path: path)["weight_map"]?.object else {
      throw .badData(path, "it has no weight_map; download the checkpoint again")
    }
    var places: [ExactString: String] = [:]
    for member in map.members {
      guard let name = member.value.string, !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")),
        !name.utf8.contains(0), name != "..", name != "."
      else {
        throw .badData(path, "tensor \(printable(member.key)): its file is not named by a file name of this folder")
      }
      places[ExactString(member.key)] = name
    }
    self.places = places
    files = Set(places.values).sorted()
    guard files.count <= Self.maximumFiles else {
      throw .badData(path, "\(grouped(files.count)) files are more than a checkpoint may have (\(Self.maximumFiles))")
    }
    guard !files.isEmpty else { throw .badData(path, "its weight_map is empty; download the checkpoint again") }
  }

  /// Every file is kept open: a bound well under the usual limit of 1,024.
  private static let maximumFiles = 800

  /// Whether `source` has all tensors.
  func isIn(_ source: SafetensorsSource) -> Bool { places.keys.allSatisfy { source.tensor(named: $0.text) != nil } }

  /// Where the index is wrong about `source`. A tensor that the model needs and that is nowhere is found missing later.
  func remarks(on source: SafetensorsSource, folder: String) -> [String] {
    var (absent, elsewhere): ([String], [String]) = ([], [])
    for (name, file) in places {
      guard let tensor = source.tensor(named: name.text) else {
        absent.append(name.text)
        continue
      }
      if source.path(of: tensor) != "\(folder)/\(file)" { elsewhere.append(name.text) }
    }
    return [(absent, "are in none of its files"), (elsewhere, "are in another file than it says")].compactMap {
      names, what in
      guard let first = names.min() else { return nil }
      return "\(path): \(grouped(names.count)) of its tensors \(what) (\(printable(first)))"
    }
  }
}
