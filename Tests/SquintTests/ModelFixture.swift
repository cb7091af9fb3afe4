import Foundation
import Squint
import SquintConversion
import SquintFile
import Testing

/// What a fixture's model is converted from: files and folders in the fixture's own.
struct FixtureConversion: Decodable, Sendable {
  var source: String?
  var decoder: String?
  var encoder: String?
  var projector: String?
}

/// A tiny model in a folder of Tests/Fixtures, whose cases.json says how it is converted and what is compared.
protocol ModelFixture: Decodable, Sendable, CustomTestStringConvertible {
  /// The folder of all of its kind.
  static var root: URL { get }
  /// What the converter calls the kind of media that its encoder is of.
  static var modality: String { get }
  static var all: [Self] { get }
  var convert: FixtureConversion { get }
  /// The name of its folder; not in the file.
  var name: String { get set }
}

extension ModelFixture {
  var testDescription: String { name }

  /// Those in `root`.
  static func found() -> [Self] {
    try! FileManager.default.contentsOfDirectory(atPath: root.path).sorted().compactMap { name in
      let file = root.appendingPathComponent("\(name)/cases.json")
      guard FileManager.default.fileExists(atPath: file.path) else { return nil }
      var fixture = try JSONDecoder().decode(Self.self, from: Data(contentsOf: file))
      fixture.name = name
      return fixture
    }
  }

  static func named(_ name: String) -> Self { all.first { $0.name == name }! }

  func file(_ name: String) -> URL { Self.root.appendingPathComponent("\(self.name)/\(name)") }

  /// Converts it with all parts in `type`. The file is there as long as the folder.
  func convert(_ type: ElementType) throws -> (path: String, TemporaryFolder) {
    let folder = try TemporaryFolder()
    let path = folder.path + "/model.squint"
    func place(_ part: String) -> String { file(part).standardized.path }
    var options = ConversionOptions()
    options.type = type
    options.jobs = 1
    let sources = ConversionSources(
      convert.source.map(place), decoder: convert.decoder.map(place),
      encoders: convert.encoder.map { [Self.modality: place($0)] } ?? [:],
      projectors: convert.projector.map { [Self.modality: place($0)] } ?? [:])
    try SquintConversion.convert(sources, to: path, options: options)
    return (path, folder)
  }

  /// The same, opened. The mapping outlives the file.
  func model(_ type: ElementType) throws -> Model {
    let (path, folder) = try convert(type)
    defer { withExtendedLifetime(folder) {} }
    return try Model(path: path)
  }
}
