"""The smallest network that is one: a single 1×1 convolution, as an ONNX file and as a `.tflite` file.

Running it brings a library to where any model would have it (plug-ins, code pages, its own tables), so that a model's
memory can be told from the runtime's. Without it 47 MB of OpenVINO would count as every model's.
Imports nothing of the package.
"""

import base64
import zlib

# ModelProto {ir_version: 8, opset 13, graph "g" {y = Conv(x, w), all of shape 1×1×1×1, w = 1}}; the tests read it back.
CONVOLUTION = (
    b'\x08\x08:c\n\x0f\n\x01x\n\x01w\x12\x01y"\x04Conv\x12\x01g*\x13\x08\x01\x08\x01\x08\x01\x08\x01\x10\x01'
    b'"\x04\x00\x00\x80?B\x01wZ\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01'
    b"\n\x02\x08\x01b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01"
    b"B\x04\n\x00\x10\r"
)

# The same, Conv2D with weight 1 and bias 0 on 1×1×1×1; packed, as most of its 488 bytes are zeros.
CONVOLUTION_LITERT = zlib.decompress(
    base64.b64decode(
        "eNp1UTsOwjAMfaERqkpUMVSIgYGBAyCxsLExdeQAiImBgY2y9SCMHIwTcIXyYrsfIbXSS+0XP+c5WQI4HcsdkKPAHAEpGc8MzICSeDsggWJP"
        "rKUC+DZN4y3Wb0q156qc8vXBw0vsrGfoTvJclbsSN+JudYVocyxkP2BmnlZ6kIseNhJm0iP2ykzbovUMyycD3hkffb2IM7G1vOZcqfjUuqfx"
        "7g8f1gXr29ZeBvtBnKObM3S8/h8jfYO9Akw39FKNaPq7jXfVa23+5AfPxRYf"
    )
)
