from setuptools import setup

NAME = "sam4mllm_bridge"

setup(
    name=NAME,
    version="0.1.0",
    description="Camera topics and spoken-style commands to a sam4mllm node; detections and a synchronous mask back",
    license="MIT OR Apache-2.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/bridge.launch.py"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    entry_points={"console_scripts": [f"bridge = {NAME}.node:main"]},
)
