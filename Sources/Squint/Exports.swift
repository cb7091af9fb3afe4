// `import Squint` is all that a program needs: these modules' types are in its API.
@_exported import SquintCompute
@_exported import SquintFile
@_exported import SquintMedia
@_exported import SquintTemplates
@_exported import SquintText
