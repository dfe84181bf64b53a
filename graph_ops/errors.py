"""The exception tree of the library.

Every class has a stable `code` (the HTTP face turns it into a problem type, the CLI into an exit
code), carries its data in `details`, and has a sentence for a message that says what to do.

    PrunerError
    ├── ModelError                    what is wrong with the model file
    │   ├── NotOnnxError              model_not_onnx
    │   ├── TruncatedModelError       model_truncated
    │   ├── InvalidModelError         model_invalid
    │   ├── ExternalDataError         model_external_data
    │   ├── UnknownDomainError        model_unknown_domain
    │   ├── UnsupportedVersionError   model_unsupported_version
    │   ├── NoConvolutionError        model_no_convolution
    │   ├── ModelArchiveError         model_archive
    │   ├── ModelTooLargeError        model_too_large
    │   └── ModelRunError             model_run_failed
    │       └── OutOfMemoryError      out_of_memory
    ├── BundleError                   what is wrong with the calibration bundle
    │   ├── BundleFormatError         bundle_format
    │   ├── PickledBundleError        bundle_pickled
    │   ├── BundleTooLargeError       bundle_too_large
    │   ├── EmptyBundleError          bundle_empty
    │   ├── MissingInputError         bundle_missing_input
    │   ├── DuplicateNameError        bundle_duplicate_name
    │   ├── ShapeMismatchError        bundle_shape
    │   ├── DtypeMismatchError        bundle_dtype
    │   ├── LengthMismatchError       bundle_length
    │   ├── LabelRangeError           bundle_label_range
    │   ├── NotFiniteError            bundle_not_finite
    │   ├── PreprocessingError        bundle_preprocessing
    │   └── ImageError                bundle_images
    ├── OptionsError                  options_invalid
    │   ├── LossError                 loss_invalid
    │   ├── FilterGlobError           options_no_match
    │   ├── ChannelListError          channels_invalid
    │   └── ReportMismatchError       report_mismatch
    ├── ScoreError                    what went wrong while scoring
    │   ├── GradientError             gradient_unsupported
    │   ├── NothingPrunableError      nothing_prunable
    │   ├── ScoresMissingError        scores_missing
    │   └── ScoreStateError           score_state_mismatch
    ├── EngineError                   what is wrong with a gradient engine
    │   ├── EngineUnavailableError    engine_unavailable
    │   ├── EngineUnsupportedError    engine_unsupported
    │   └── EngineProcessError        engine_process_failed
    ├── UnreachableTargetError        target_unreachable
    ├── SurgeryError                  surgery_failed
    └── ProofError                    proof_failed
"""

from __future__ import annotations

from typing import ClassVar


class PrunerError(Exception):
    """Base of every error the library raises on purpose.

    Attributes:
        code: Stable identifier of the error class.
        details: JSON-serialisable facts (node, tensor, field, expected, found, ...).
    """

    code: ClassVar[str] = "pruner_error"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[object, ...]:
        """Keep `details` when the error crosses a process boundary."""
        return (_rebuild, (type(self), self.message, self.details))


def _rebuild(cls: type[PrunerError], message: str, details: dict[str, object]) -> PrunerError:
    return cls(message, **details)


class ModelError(PrunerError):
    """The model file cannot be used."""

    code = "model_error"


class NotOnnxError(ModelError):
    """The bytes are not an ONNX model."""

    code = "model_not_onnx"


class TruncatedModelError(ModelError):
    """The file ends before the model does."""

    code = "model_truncated"


class InvalidModelError(ModelError):
    """`onnx.checker` or shape inference refuses the model."""

    code = "model_invalid"


class ExternalDataError(ModelError):
    """External data is missing, or lies outside the model's folder."""

    code = "model_external_data"


class UnknownDomainError(ModelError):
    """The model uses operators of a domain that ONNX Runtime does not know."""

    code = "model_unknown_domain"


class UnsupportedVersionError(ModelError):
    """The opset or IR version is outside what is supported."""

    code = "model_unsupported_version"


class NoConvolutionError(ModelError):
    """There is no convolution in the model, so there are no filters to prune."""

    code = "model_no_convolution"


class ModelArchiveError(ModelError):
    """The `.zip` with model and data files cannot be used."""

    code = "model_archive"


class ModelTooLargeError(ModelError):
    """The model, packed or unpacked, is over a limit."""

    code = "model_too_large"


class ModelRunError(ModelError):
    """ONNX Runtime cannot load or run the model."""

    code = "model_run_failed"


class OutOfMemoryError(ModelRunError):
    """A run asks for more memory than there is, even with a single sample."""

    code = "out_of_memory"


class BundleError(PrunerError):
    """The calibration bundle cannot be used."""

    code = "bundle_error"


class BundleFormatError(BundleError):
    """The bundle is neither a readable `.npz` nor a readable `.safetensors`."""

    code = "bundle_format"


class PickledBundleError(BundleError):
    """The bundle holds pickled Python objects, which are never loaded."""

    code = "bundle_pickled"


class BundleTooLargeError(BundleError):
    """An array, or the ratio of unpacked to packed bytes, is over a limit."""

    code = "bundle_too_large"


class EmptyBundleError(BundleError):
    """The bundle holds no samples (or none are left after the hold-out)."""

    code = "bundle_empty"


class MissingInputError(BundleError):
    """The bundle has no array for one of the model's inputs."""

    code = "bundle_missing_input"


class DuplicateNameError(BundleError):
    """The bundle holds two arrays of one name."""

    code = "bundle_duplicate_name"


class ShapeMismatchError(BundleError):
    """An array's rank or shape does not fit the model's input."""

    code = "bundle_shape"


class DtypeMismatchError(BundleError):
    """An array's element type cannot be cast safely to the model input's."""

    code = "bundle_dtype"


class LengthMismatchError(BundleError):
    """Two arrays hold different numbers of samples."""

    code = "bundle_length"


class LabelRangeError(BundleError):
    """A class id is outside the model's classes."""

    code = "bundle_label_range"


class NotFiniteError(BundleError):
    """An array holds NaN or infinity."""

    code = "bundle_not_finite"


class PreprocessingError(BundleError):
    """`bundle.json` is missing or says what it may not; the details may offer a guess."""

    code = "bundle_preprocessing"


class ImageError(BundleError):
    """Too many images cannot be decoded, or their labels cannot be told."""

    code = "bundle_images"


class OptionsError(PrunerError):
    """An option is unknown, has a wrong value, or contradicts another."""

    code = "options_invalid"


class LossError(OptionsError):
    """The loss does not fit the model's output or the bundle's targets."""

    code = "loss_invalid"


class FilterGlobError(OptionsError):
    """An `include` or `exclude` pattern matches no convolution."""

    code = "options_no_match"


class ChannelListError(OptionsError):
    """A list of channels names what is not there, may not go, or belongs together."""

    code = "channels_invalid"


class ReportMismatchError(OptionsError):
    """A report that is to be replayed is of a model with another graph."""

    code = "report_mismatch"


class ScoreError(PrunerError):
    """Scoring cannot go on."""

    code = "score_error"


class GradientError(ScoreError):
    """No gradient can be built: an operator without a rule is in the way."""

    code = "gradient_unsupported"


class NothingPrunableError(ScoreError):
    """Every filter is frozen or at its floor; the reasons are in the details."""

    code = "nothing_prunable"


class ScoresMissingError(ScoreError):
    """`update_prunables` was called before any score was taken."""

    code = "scores_missing"


class ScoreStateError(ScoreError):
    """A saved score state belongs to another model or another definition of the score."""

    code = "score_state_mismatch"


class StaleShardError(ScoreError):
    """A shard of a scoring is asked for that the run is past, or has not."""

    code = "stale_shard"


class EngineError(PrunerError):
    """A gradient engine cannot do its work."""

    code = "engine_error"


class EngineUnavailableError(EngineError):
    """The engine's environment, library or device is missing or of the wrong version."""

    code = "engine_unavailable"


class EngineUnsupportedError(EngineError):
    """The engine cannot differentiate an operator of this model."""

    code = "engine_unsupported"


class EngineProcessError(EngineError):
    """The engine's process ended, hung, or failed in native code."""

    code = "engine_process_failed"


class UnreachableTargetError(PrunerError):
    """The target cannot be reached; the details say how far it could go."""

    code = "target_unreachable"


class SurgeryError(PrunerError):
    """The graph could not be cut; the model is left as it was."""

    code = "surgery_failed"


class ProofError(PrunerError):
    """The pruned model does not equal the masked original; it is not returned."""

    code = "proof_failed"
